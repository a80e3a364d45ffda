package host

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"sqledge.io/test-storage/journal"
)

// The numbers of the NBD protocol (fixed newstyle negotiation, simple replies); only what is used here.
const (
	nbdMagic        = 0x4e42444d41474943
	nbdOptionMagic  = 0x49484156454f5054
	nbdReplyMagic   = 0x3e889045565a9
	nbdRequestMagic = 0x25609513
	nbdSimpleMagic  = 0x67446698

	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1

	optionExportName = 1
	optionAbort      = 2
	optionInfo       = 6
	optionGo         = 7

	replyAck         = 1
	replyInfo        = 3
	replyUnsupported = 1<<31 + 1
	replyUnknown     = 1<<31 + 6
	infoExport       = 0

	transmissionHasFlags = 1 << 0
	transmissionFlush    = 1 << 2
	transmissionFUA      = 1 << 3
	transmissionMulti    = 1 << 8

	commandRead  = 0
	commandWrite = 1
	commandDisc  = 2
	commandFlush = 3
	commandFUA   = 1 << 0

	// errors on the wire are Linux numbers
	wireEIO    = 5
	wireEINVAL = 22
	wireENOSPC = 28

	maxPayload = 32 << 20
	maxOption  = 64 << 10
	// a client that says nothing is not kept while it negotiates
	negotiationTimeout = 10 * time.Second
	// after this much silence of a whole node its connection counts as gone, and mode `refuse` no longer sees it alive
	peerTimeout = 30 * time.Second
)

// A flush on one connection is an fsync of the one file, so it covers the writes of all: several connections are safe.
const transmissionFlags = transmissionHasFlags | transmissionFlush | transmissionFUA | transmissionMulti

// connection is one NBD client.
type connection struct {
	net.Conn
	in  *bufio.Reader
	out *bufio.Writer
}

// serveNBD speaks to one client until it leaves.
func (h *Host) serveNBD(socket net.Conn) error {
	defer socket.Close()
	noticeDeadPeer(socket)
	c := &connection{Conn: socket, in: bufio.NewReaderSize(socket, 64<<10), out: bufio.NewWriterSize(socket, 64<<10)}
	if err := c.SetDeadline(time.Now().Add(negotiationTimeout)); err != nil {
		return err
	}
	e, err := c.negotiate(h.findExport)
	if err != nil || e == nil {
		return err
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		return err
	}
	peer := socket.RemoteAddr().String()
	line := e.entry(journal.Connected)
	line.Peer = peer
	h.journal.Append(line)
	err = c.transmit(e)
	e.connections.Add(-1)
	line = e.entry(journal.Disconnected)
	line.Peer = peer
	if err != nil {
		line.Reason = err.Error()
	}
	h.journal.Append(line)
	return err
}

// negotiate returns the export that the client chose, or nil if it left. find counts the connection.
func (c *connection) negotiate(find func(name, peer string) *export) (*export, error) {
	hello := binary.BigEndian.AppendUint64(nil, nbdMagic)
	hello = binary.BigEndian.AppendUint64(hello, nbdOptionMagic)
	hello = binary.BigEndian.AppendUint16(hello, flagFixedNewstyle|flagNoZeroes)
	if err := c.send(hello); err != nil {
		return nil, err
	}
	var clientFlags [4]byte
	if _, err := io.ReadFull(c.in, clientFlags[:]); err != nil {
		return nil, err
	}
	noZeroes := binary.BigEndian.Uint32(clientFlags[:])&flagNoZeroes != 0
	for {
		option, data, err := c.readOption()
		if err != nil {
			return nil, err
		}
		switch option {
		case optionExportName:
			e := find(string(data), c.RemoteAddr().String())
			if e == nil {
				// the protocol has no way to say no to this option but to hang up
				return nil, errors.New("unknown export")
			}
			answer := exportInfo()
			if !noZeroes {
				answer = append(answer, make([]byte, 124)...)
			}
			return e, c.send(answer)
		case optionAbort:
			return nil, c.replyOption(option, replyAck, nil)
		case optionInfo, optionGo:
			e, err := c.replyInfo(option, data, find)
			if err != nil || (e != nil && option == optionGo) {
				return e, err
			}
			if e != nil {
				e.connections.Add(-1) // only asked
			}
		default:
			if err := c.replyOption(option, replyUnsupported, nil); err != nil {
				return nil, err
			}
		}
	}
}

func (c *connection) readOption() (uint32, []byte, error) {
	var head [16]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return 0, nil, err
	}
	length := binary.BigEndian.Uint32(head[12:])
	if binary.BigEndian.Uint64(head[:]) != nbdOptionMagic || length > maxOption {
		return 0, nil, errors.New("the client does not speak NBD")
	}
	data := make([]byte, length)
	_, err := io.ReadFull(c.in, data)
	return binary.BigEndian.Uint32(head[8:]), data, err
}

func (c *connection) replyInfo(option uint32, data []byte, find func(name, peer string) *export) (*export, error) {
	if len(data) < 4 || uint64(binary.BigEndian.Uint32(data))+4 > uint64(len(data)) {
		return nil, errors.New("the client sent a malformed option")
	}
	name := string(data[4 : 4+binary.BigEndian.Uint32(data)])
	e := find(name, c.RemoteAddr().String())
	if e == nil {
		return nil, c.replyOption(option, replyUnknown, []byte("no such export, or it has been revoked"))
	}
	info := binary.BigEndian.AppendUint16(nil, infoExport)
	if err := c.replyOption(option, replyInfo, append(info, exportInfo()...)); err != nil {
		return e, err
	}
	return e, c.replyOption(option, replyAck, nil)
}

func (c *connection) replyOption(option, kind uint32, data []byte) error {
	reply := binary.BigEndian.AppendUint64(nil, nbdReplyMagic)
	reply = binary.BigEndian.AppendUint32(reply, option)
	reply = binary.BigEndian.AppendUint32(reply, kind)
	reply = binary.BigEndian.AppendUint32(reply, uint32(len(data)))
	return c.send(append(reply, data...))
}

func exportInfo() []byte {
	info := binary.BigEndian.AppendUint64(nil, deviceSize)
	return binary.BigEndian.AppendUint16(info, transmissionFlags)
}

// transmit answers requests one after the other; a client that wants them side by side opens several connections.
func (c *connection) transmit(e *export) error {
	var head [28]byte
	buffer := make([]byte, 0, 256<<10)
	for {
		if _, err := io.ReadFull(c.in, head[:]); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		if binary.BigEndian.Uint32(head[:]) != nbdRequestMagic {
			return errors.New("the client sent no request")
		}
		flags, command := binary.BigEndian.Uint16(head[4:]), binary.BigEndian.Uint16(head[6:])
		offset, length := binary.BigEndian.Uint64(head[16:]), binary.BigEndian.Uint32(head[24:])
		if command == commandDisc {
			return nil
		}
		if (command == commandRead || command == commandWrite) && length > maxPayload {
			return fmt.Errorf("the client asked for %d bytes in one request", length)
		}
		status, answer := uint32(0), []byte(nil)
		switch command {
		case commandRead:
			buffer = grow(buffer, length)
			if !isInside(deviceSize, offset, length) {
				status = wireEINVAL
			} else if err := e.read(buffer, offset); err != nil {
				status = wireEIO
			} else {
				answer = buffer
			}
		case commandWrite:
			buffer = grow(buffer, length)
			if _, err := io.ReadFull(c.in, buffer); err != nil {
				return err
			}
			if !e.volume.holds(offset, length) {
				status = wireENOSPC
			} else if err := e.write(buffer, offset, flags&commandFUA != 0); err != nil {
				status = wireEIO
			}
		case commandFlush:
			if err := e.flush(); err != nil {
				status = wireEIO
			}
		default:
			status = wireEINVAL
		}
		reply := binary.BigEndian.AppendUint32(make([]byte, 0, 16), nbdSimpleMagic)
		reply = binary.BigEndian.AppendUint32(reply, status)
		reply = append(reply, head[8:16]...)
		if err := c.send(reply, answer); err != nil {
			return err
		}
	}
}

func grow(buffer []byte, length uint32) []byte {
	if uint32(cap(buffer)) < length {
		return make([]byte, length)
	}
	return buffer[:length]
}

func (c *connection) send(parts ...[]byte) error {
	for _, part := range parts {
		if _, err := c.out.Write(part); err != nil {
			return err
		}
	}
	return c.out.Flush()
}

// noticeDeadPeer makes the kernel give up a connection whose other machine vanished without a word.
func noticeDeadPeer(socket net.Conn) {
	tcp, ok := socket.(*net.TCPConn)
	if !ok {
		return
	}
	// failing to set any of these only makes the host slower to notice
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: peerTimeout / 2, Interval: peerTimeout / 6, Count: 3})
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(peerTimeout.Milliseconds()))
		})
	}
}
