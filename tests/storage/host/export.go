package host

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sqledge.io/test-storage/journal"
)

// errRevoked is what a node's requests meet once its export has ended.
var errRevoked = errors.New("the export has been revoked")

// volume is a file of the host with the exports that lead to it.
type volume struct {
	id, driver string
	// size only grows; exports read it while they serve
	size atomic.Int64
	file *os.File
	// mode is this volume's own mode; unset means the host's
	mode    mode
	exports map[string]*export
}

// export is one node's way to a volume. Its name is random, so it ends for good: nothing that a node kept leads back to it.
type export struct {
	volume     *volume
	node, name string
	journal    *journal.Journal

	// gate is held shared by each request and exclusively by revoke. So revoke returns only when no request is under
	// way, and every later one sees revoked: there is no moment in which a write can slip through.
	gate    sync.RWMutex
	revoked bool

	connections atomic.Int64
	// unpublished and askedAt belong to the host's table and are guarded by its lock
	unpublished bool
	askedAt     time.Time
}

func (e *export) entry(event string) journal.Entry {
	return journal.Entry{Event: event, Volume: e.volume.id, Driver: e.volume.driver, Node: e.node, Export: e.name}
}

func (e *export) read(buffer []byte, offset uint64) error {
	e.gate.RLock()
	defer e.gate.RUnlock()
	if e.revoked {
		return errRevoked
	}
	n, err := e.volume.file.ReadAt(buffer, int64(offset))
	if errors.Is(err, io.EOF) {
		clear(buffer[n:])
		return nil
	}
	return err
}

// holds says whether a write of so many bytes lies in the volume, which is smaller than the device it is on.
func (v *volume) holds(offset uint64, length uint32) bool {
	return isInside(uint64(v.size.Load()), offset, length)
}

func isInside(size, offset uint64, length uint32) bool {
	return offset <= size && uint64(length) <= size-offset
}

// write is logged before the gate opens for a revocation, so the order of the log is the order of what happened.
func (e *export) write(data []byte, offset uint64, fua bool) error {
	e.gate.RLock()
	defer e.gate.RUnlock()
	err := errRevoked
	accepted := false
	if !e.revoked {
		_, err = e.volume.file.WriteAt(data, int64(offset))
		accepted = err == nil
		if accepted && fua {
			err = e.sync()
		}
	}
	line := e.entry(journal.Written)
	line.Write = &journal.Write{Offset: offset, Length: uint32(len(data)), Accepted: accepted, FUA: fua}
	if err != nil {
		line.Reason = err.Error()
	}
	e.journal.Append(line)
	return err
}

func (e *export) flush() error {
	e.gate.RLock()
	defer e.gate.RUnlock()
	if e.revoked {
		return errRevoked
	}
	return e.sync()
}

func (e *export) sync() error { return unix.Fdatasync(int(e.volume.file.Fd())) }

// revoke ends the export. Connections stay open: whatever still arrives on them is answered with an error and logged, which
// is how a late writer shows itself.
func (e *export) revoke() {
	e.gate.Lock()
	defer e.gate.Unlock()
	if !e.revoked {
		e.revoked = true
		e.journal.Append(e.entry(journal.Revoked))
	}
}
