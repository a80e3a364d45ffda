// Package host is the storage host: it keeps volumes as files, exports each to one node at a time over NBD, and writes down every
// write with the node it came from.
//
// It stands for the storage array of a real cluster. Kubernetes, CSI and file systems are unknown to it; the driver package calls
// its HTTP interface, nodes connect with an NBD client. It enforces the one-writer rule itself, so that a mistake of any
// caller shows up as a refusal and not as a corrupted volume. The one exception is mode `lie`, which tests set on purpose.
package host

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"sqledge.io/test-storage/control"
	"sqledge.io/test-storage/journal"
)

// Host is a running storage host.
type Host struct {
	folder   string
	logPath  string
	journal  *journal.Journal
	api, nbd net.Listener

	// mu guards everything below. It is held while an export is revoked, which waits for requests under way: a few
	// milliseconds, and no other decision may fall in between.
	mu      sync.Mutex
	mode    mode
	nodes   map[string]bool
	volumes map[string]*volume
	// names finds live exports; revoked ones are not in it
	names map[string]*export
	// changed is closed and replaced whenever a mode changes, so that those who wait look again
	changed chan struct{}
}

// Open loads what an earlier run left in folder. The host will answer control calls on api and nodes on nbd.
func Open(folder, logPath string, api, nbd net.Listener) (*Host, error) {
	log, err := journal.Open(logPath)
	if err != nil {
		return nil, err
	}
	h := &Host{
		folder: folder, logPath: logPath, journal: log, api: api, nbd: nbd, mode: mode{kind: modeRevoke},
		nodes: map[string]bool{}, volumes: map[string]*volume{}, names: map[string]*export{}, changed: make(chan struct{}),
	}
	if err := h.load(); err != nil {
		return nil, err
	}
	h.journal.Append(journal.Entry{Event: journal.HostStarted, Mode: h.mode.String()})
	return h, nil
}

// Serve answers until the context ends.
func (h *Host) Serve(ctx context.Context) error {
	server := &http.Server{Handler: h.routes(), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 2)
	go func() { failed <- server.Serve(h.api) }()
	go func() {
		for {
			socket, err := h.nbd.Accept()
			if err != nil {
				failed <- err
				return
			}
			// how a connection ended is in the log
			go func() { _ = h.serveNBD(socket) }()
		}
	}()
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	return errors.Join(err, server.Close(), ignoreClosed(h.nbd.Close()))
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// findExport is asked by each connection; it counts the connection under the lock, so that none escapes a look at "is the node
// connected".
func (h *Host) findExport(name, peer string) *export {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.names[name]
	if e == nil {
		h.journal.Append(journal.Entry{Event: journal.ConnectRefused, Export: name, Peer: peer})
		return nil
	}
	e.connections.Add(1)
	return e
}

func (h *Host) registerNode(node string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.nodes[node] {
		return nil
	}
	h.nodes[node] = true
	h.journal.Append(journal.Entry{Event: journal.NodeRegistered, Node: node})
	return h.save()
}

func (h *Host) setMode(id, text string) error {
	wanted, err := parseMode(text)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	line := journal.Entry{Event: journal.ModeSet, Mode: wanted.String()}
	if id == control.AllVolumes {
		h.mode = wanted
		for _, v := range h.volumes {
			v.mode = mode{}
		}
	} else {
		v := h.volumes[id]
		if v == nil {
			return unknownVolume(id)
		}
		v.mode = wanted
		line.Volume, line.Driver = v.id, v.driver
	}
	h.journal.Append(line)
	close(h.changed)
	h.changed = make(chan struct{})
	return h.save()
}

func (h *Host) modeOf(v *volume) mode {
	if v.mode.kind != "" {
		return v.mode
	}
	return h.mode
}

func unknownVolume(id string) error {
	return control.Refuse(codes.NotFound, "volume %s does not exist on this storage host", id)
}

func randomName() string {
	var bytes [16]byte
	// documented never to fail
	_, _ = rand.Read(bytes[:])
	return hex.EncodeToString(bytes[:])
}
