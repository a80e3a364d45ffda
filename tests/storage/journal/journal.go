// Package journal is the storage host's log: one JSON object a line, in the order in which things took effect.
//
// The log is the tripwire of the tests: whoever judges a failover reads it and nothing else. It is written by the storage
// host only, read by the `check` command and by the tests, and knows nothing about volumes or protocols.
package journal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Names of events. README.md says what each one means and which fields it carries.
const (
	HostStarted     = "host-started"
	NodeRegistered  = "node-registered"
	VolumeCreated   = "volume-created"
	VolumeExpanded  = "volume-expanded"
	VolumeDeleted   = "volume-deleted"
	ModeSet         = "mode"
	Published       = "publish"
	PublishRefused  = "publish-refused"
	UnpublishAsked  = "unpublish-asked"
	Unpublished     = "unpublish"
	Revoked         = "revoke"
	Connected       = "connect"
	ConnectRefused  = "connect-refused"
	Disconnected    = "disconnect"
	Written         = "write"
	ReportedSuccess = "ok"
	ReportedFailure = "error"
)

// Entry is one line of the log.
type Entry struct {
	// Seq counts from 1 and has no gaps, over restarts of the host too.
	Seq uint64 `json:"seq"`
	// Time is the wall clock, for people; MonoNS is CLOCK_MONOTONIC, which all programs of one machine share.
	Time   string `json:"time"`
	MonoNS int64  `json:"mono_ns"`
	Event  string `json:"event"`
	Volume string `json:"volume,omitempty"`
	Driver string `json:"driver,omitempty"`
	Node   string `json:"node,omitempty"`
	// Export names one attachment: a volume published again to the same node gets another one.
	Export string `json:"export,omitempty"`
	// Peer is the address a connection came from.
	Peer string `json:"peer,omitempty"`
	Mode string `json:"mode,omitempty"`
	// Reported is what the caller was told, whatever really happened.
	Reported string `json:"reported,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Size     int64  `json:"size,omitempty"`
	*Write
}

// Write is what an entry of event `write` says beyond the common fields.
type Write struct {
	Offset   uint64 `json:"offset"`
	Length   uint32 `json:"length"`
	Accepted bool   `json:"accepted"`
	// FUA is true for a write that was on stable storage before it was answered.
	FUA bool `json:"fua"`
}

// Journal appends entries to a file.
type Journal struct {
	mu   sync.Mutex
	file *os.File
	seq  uint64
}

// Open continues the log at path, or begins it.
func Open(path string) (*Journal, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot open the storage log: %w", err)
	}
	seq := uint64(0)
	if err := Read(file, func(Entry) error { seq++; return nil }); err != nil {
		_ = file.Close()
		return nil, err
	}
	return &Journal{file: file, seq: seq}, nil
}

// Append stamps the entry with its number and the clocks and writes it. A log with a hole proves nothing, so a failure here
// ends the program.
func (j *Journal) Append(entry Entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.seq++
	entry.Seq = j.seq
	entry.Time = time.Now().UTC().Format(time.RFC3339Nano)
	entry.MonoNS = Monotonic()
	line, err := json.Marshal(entry)
	if err == nil {
		_, err = j.file.Write(append(line, '\n'))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "the storage log can no longer be written, so the storage host stops: %v\n", err)
		os.Exit(1)
	}
}

// Monotonic is the clock of MonoNS.
func Monotonic() int64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic("Linux always has CLOCK_MONOTONIC: " + err.Error())
	}
	return now.Nano()
}

// Read calls each for every complete line. A last line without a newline is one that is being written right now: it is left out.
func Read(source io.Reader, each func(Entry) error) error {
	lines := bufio.NewReaderSize(source, 1<<16)
	for number := 1; ; number++ {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read the storage log at line %d: %w", number, err)
		}
		var entry Entry
		if err := json.Unmarshal(bytes.TrimSpace(line), &entry); err != nil {
			return fmt.Errorf("line %d of the storage log is not an entry: %w", number, err)
		}
		if err := each(entry); err != nil {
			return err
		}
	}
}
