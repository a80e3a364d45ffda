package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
)

// nbdClient is the least NBD client there can be: written from the protocol, not from the server beside it.
type nbdClient struct {
	net.Conn
	size uint64
}

// connectNBD chooses an export with NBD_OPT_GO; an error means that the server refused it.
func connectNBD(t *testing.T, socket, export string) (*nbdClient, error) {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	hello := make([]byte, 18)
	if _, err := io.ReadFull(conn, hello); err != nil {
		t.Fatal(err)
	}
	if string(hello[:16]) != "NBDMAGICIHAVEOPT" {
		t.Fatalf("not an NBD greeting: %q", hello)
	}
	message := binary.BigEndian.AppendUint32(nil, 3)
	message = append(message, "IHAVEOPT"...)
	message = binary.BigEndian.AppendUint32(message, 7)
	message = binary.BigEndian.AppendUint32(message, uint32(4+len(export)+2))
	message = binary.BigEndian.AppendUint32(message, uint32(len(export)))
	message = append(message, export...)
	message = append(message, 0, 0)
	if _, err := conn.Write(message); err != nil {
		return nil, err
	}
	client := &nbdClient{Conn: conn}
	for {
		head := make([]byte, 20)
		if _, err := io.ReadFull(conn, head); err != nil {
			return nil, err
		}
		kind := binary.BigEndian.Uint32(head[12:])
		data := make([]byte, binary.BigEndian.Uint32(head[16:]))
		if _, err := io.ReadFull(conn, data); err != nil {
			return nil, err
		}
		switch {
		case kind == 1:
			return client, nil
		case kind == 3 && binary.BigEndian.Uint16(data) == 0:
			client.size = binary.BigEndian.Uint64(data[2:])
		case kind >= 1<<31:
			return nil, fmt.Errorf("export refused: %s", data)
		}
	}
}

// errno is what the server answered.
type errno uint32

func (e errno) Error() string { return fmt.Sprintf("NBD error %d", uint32(e)) }

// request sends one command and reads its answer; into takes the data of a read.
func (c *nbdClient) request(command, flags uint16, offset uint64, length uint32, data, into []byte) error {
	message := binary.BigEndian.AppendUint32(nil, 0x25609513)
	message = binary.BigEndian.AppendUint16(message, flags)
	message = binary.BigEndian.AppendUint16(message, command)
	message = binary.BigEndian.AppendUint64(message, offset^0x5a5a)
	message = binary.BigEndian.AppendUint64(message, offset)
	message = binary.BigEndian.AppendUint32(message, length)
	if _, err := c.Write(append(message, data...)); err != nil {
		return err
	}
	answer := make([]byte, 16)
	if _, err := io.ReadFull(c, answer); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(answer) != 0x67446698 || binary.BigEndian.Uint64(answer[8:]) != offset^0x5a5a {
		return errors.New("the answer belongs to no request")
	}
	if status := binary.BigEndian.Uint32(answer[4:]); status != 0 {
		return errno(status)
	}
	_, err := io.ReadFull(c, into)
	return err
}

func (c *nbdClient) write(offset uint64, data []byte) error {
	return c.request(1, 0, offset, uint32(len(data)), data, nil)
}

func (c *nbdClient) read(offset uint64, length uint32) ([]byte, error) {
	into := make([]byte, length)
	return into, c.request(0, 0, offset, length, nil, into)
}

func (c *nbdClient) flush() error { return c.request(3, 0, 0, 0, nil, nil) }
