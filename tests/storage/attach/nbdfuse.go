package attach

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// server is the process that makes one attached volume appear as the file `volume` in a folder. It outlives this program: a
// restarted node plugin must not take the volumes from under the pods.
type server struct {
	// folder is private to one volume and lies on the node's /run, which a reboot empties
	folder string
}

func (s server) mountPath() string { return filepath.Join(s.folder, "device") }
func (s server) file() string      { return filepath.Join(s.mountPath(), "volume") }
func (s server) pidFile() string   { return filepath.Join(s.folder, "nbdfuse.pid") }
func (s server) logFile() string   { return filepath.Join(s.folder, "nbdfuse.log") }

const pollInterval = 5 * time.Millisecond

// start returns when the file is there.
func (s server) start(ctx context.Context, address, export string) error {
	if err := os.MkdirAll(s.mountPath(), 0o700); err != nil {
		return fmt.Errorf("cannot make the mount point of a volume: %w", err)
	}
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("cannot open the log of a volume: %w", err)
	}
	defer log.Close()
	if err := os.Remove(s.pidFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot remove an old pid file: %w", err)
	}
	command := apart(filepath.Dir(s.folder), "nbdfuse", "--pidfile", s.pidFile(), s.file(), "nbd://"+address+"/"+export)
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		return fmt.Errorf("cannot start a process for nbdfuse: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		// nbdfuse writes the file when it is ready to serve
		if s.pid() != 0 {
			return nil
		}
		select {
		case err := <-ended:
			return fmt.Errorf("nbdfuse could not attach export %s: %w: %s", export, err, s.lastWords())
		case <-ctx.Done():
			return errors.Join(ctx.Err(), command.Process.Kill())
		case <-tick.C:
		}
	}
}

func (s server) lastWords() string {
	text, err := os.ReadFile(s.logFile())
	if err != nil {
		return "it left no log"
	}
	text = bytes.TrimSpace(text)
	if newline := bytes.LastIndexByte(text, '\n'); newline >= 0 {
		text = text[newline+1:]
	}
	return string(text)
}

// pid is the process that serves this folder, or 0. The number in the file is believed only if its process is ours: after a reboot
// or a crash it may be anybody's.
func (s server) pid() int {
	text, err := os.ReadFile(s.pidFile())
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return 0
	}
	// empty for a process that has ended and was not waited for
	words, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !bytes.Contains(words, []byte(s.file()+"\x00")) {
		return 0
	}
	return pid
}

// answers reads from the storage host, past the page cache.
func (s server) answers(limit time.Duration) bool {
	if s.pid() == 0 {
		return false
	}
	return within(limit, func() error {
		file, err := unix.Open(s.file(), unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(file) }()
		page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Munmap(page) }()
		_, err = unix.Pread(file, page, 0)
		return err
	}) == nil
}

// kill ends the process at once; every request that waits for it then fails.
func (s server) kill() error {
	if pid := s.pid(); pid != 0 {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("cannot kill nbdfuse, process %d: %w", pid, err)
		}
	}
	return s.waitGone(killTimeout)
}

const (
	stopTimeout = 5 * time.Second
	killTimeout = 10 * time.Second
)

// stop lets the process say goodbye to the storage host, and kills it if it does not.
func (s server) stop() error {
	err := unmountAll(s.mountPath(), false)
	if err == nil {
		err = s.waitGone(stopTimeout)
	}
	if err != nil {
		err = errors.Join(s.kill(), unmountAll(s.mountPath(), true))
	}
	if err != nil {
		return err
	}
	if err := os.RemoveAll(s.folder); err != nil {
		return fmt.Errorf("cannot remove the folder of a volume: %w", err)
	}
	return nil
}

func (s server) waitGone(limit time.Duration) error {
	for deadline := time.Now().Add(limit); s.pid() != 0; {
		if time.Now().After(deadline) {
			return fmt.Errorf("nbdfuse, process %d, does not end", s.pid())
		}
		time.Sleep(pollInterval)
	}
	return nil
}
