// Package attach is the node's side of a volume: it connects to an export, makes a mounted file system of it, and takes it
// down again, whatever state the storage or an earlier life of the node left it in.
//
// A volume is nbdfuse (an NBD client that shows the export as a file) + a loop device + a file system. It knows nothing of CSI. Nothing is kept in
// memory: what is true is read from the mount table and from the node's /run, both of which end with the node.
package attach

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// a device that does not answer a read within this counts as dead
	answerTimeout = 3 * time.Second
	// what unmounting may take on a device that answers; what is still in the page cache is written in this time
	unmountTimeout = 30 * time.Second
)

var (
	// ErrNotStaged: the volume must be staged first.
	ErrNotStaged = errors.New("the volume is not mounted at its staging path")
	// ErrNotMounted: the path names no volume of ours.
	ErrNotMounted = errors.New("no volume is mounted at this path")
	// ErrPublishedElsewhere: the volume has a target already and may have only one.
	ErrPublishedElsewhere = errors.New("the volume is already published at another target path")
)

// Volumes are those of one driver on one node.
type Volumes struct {
	folder string
}

// New keeps its state in folder, on which it mounts a tmpfs.
func New(folder string) *Volumes { return &Volumes{folder: filepath.Clean(folder)} }

func (v *Volumes) server(id string) server {
	sum := sha256.Sum256([]byte(id))
	return server{folder: filepath.Join(v.folder, hex.EncodeToString(sum[:8]))}
}

// Source is where a volume is to be had.
type Source struct {
	Address, Export string
	// FileSystem is what a blank volume is formatted with.
	FileSystem string
	// Size of the volume; what is exported is larger, so that the volume can grow.
	Size int64
}

// Stage mounts the volume at path. Staged already, it changes nothing; staged from an export that has ended, or half taken
// down, it starts afresh.
func (v *Volumes) Stage(ctx context.Context, id string, from Source, path string, options []string) error {
	s := v.server(id)
	mounted, err := mountedAt(path)
	if err != nil {
		return err
	}
	if mounted != nil && s.exportName() == from.Export && s.answers(answerTimeout) {
		return nil
	}
	if err := v.Unstage(id, path); err != nil {
		return err
	}
	if err := os.MkdirAll(path, 0o750); err != nil {
		return fmt.Errorf("cannot make the staging path: %w", err)
	}
	if err := shareFolder(v.folder); err != nil {
		return err
	}
	err = s.mount(ctx, from, path, options)
	if err != nil {
		err = errors.Join(err, unmountAll(path, true), s.stop())
	}
	return err
}

func (s server) mount(ctx context.Context, from Source, path string, options []string) error {
	if err := s.start(ctx, from.Address, from.Export); err != nil {
		return err
	}
	if err := os.WriteFile(s.exportFile(), []byte(from.Export), 0o600); err != nil {
		return fmt.Errorf("cannot note the export of a volume: %w", err)
	}
	if from.FileSystem == XFS {
		// the nodes share one kernel, in which a node that lost the volume may still have it mounted
		options = append(slices.Clone(options), "nouuid")
	}
	flags, data := mountFlags(options)
	return withLoop(s.file(), from.Size, func(device string) error {
		if err := prepareFileSystem(ctx, device, from.FileSystem); err != nil {
			return err
		}
		if err := unix.Mount(device, path, from.FileSystem, flags, data); err != nil {
			return fmt.Errorf("cannot mount the volume at %s: %w", path, err)
		}
		return nil
	})
}

func (s server) exportFile() string { return filepath.Join(s.folder, "export") }

func (s server) exportName() string {
	// unreadable means not ours any more, which is what the empty name says
	text, _ := os.ReadFile(s.exportFile())
	return string(text)
}

// mountFlags splits the options that mount(2) wants as bits from those that the file system reads.
func mountFlags(options []string) (uintptr, string) {
	bits := map[string]uintptr{
		"ro": unix.MS_RDONLY, "noatime": unix.MS_NOATIME, "nodev": unix.MS_NODEV, "nosuid": unix.MS_NOSUID,
		"noexec": unix.MS_NOEXEC, "relatime": unix.MS_RELATIME, "sync": unix.MS_SYNCHRONOUS, "rw": 0, "defaults": 0,
	}
	var flags uintptr
	var rest []string
	for _, option := range options {
		if bit, known := bits[option]; known {
			flags |= bit
		} else {
			rest = append(rest, option)
		}
	}
	return flags, strings.Join(rest, ",")
}

// Unstage unmounts the volume and leaves the export. On a device that answers, everything written reaches the storage first, and a
// mount still in use is an error; on a dead one it always succeeds.
func (v *Volumes) Unstage(id, path string) error {
	s := v.server(id)
	if s.answers(answerTimeout) {
		err := within(unmountTimeout, func() error { return syncAndUnmount(path) })
		if err == nil {
			return s.stop()
		}
		// it may have died meanwhile
		if !errors.Is(err, errTooLong) && s.answers(answerTimeout) {
			return err
		}
	}
	// the dead server goes first: what hangs in the kernel then fails, and the unmount cannot hang
	return errors.Join(s.kill(), unmountAll(path, true), s.stop())
}

// syncAndUnmount writes back first because another mount namespace may hold the file system too, and then unmounting does not.
func syncAndUnmount(path string) error {
	mounted, err := mountedAt(path)
	if err != nil || mounted == nil {
		return err
	}
	folder, err := os.Open(path)
	if err == nil {
		err = errors.Join(unix.Syncfs(int(folder.Fd())), folder.Close())
	}
	if err != nil {
		return fmt.Errorf("cannot write back %s: %w", path, err)
	}
	return unmountAll(path, false)
}

// Publish binds the staged volume to target. With only set, no other target may have it.
func (v *Volumes) Publish(staging, target string, readOnly, only bool) error {
	table, err := mountTable()
	if err != nil {
		return err
	}
	staged, err := mountedAt(staging)
	if err != nil {
		return err
	}
	if staged == nil {
		return ErrNotStaged
	}
	for _, m := range table {
		// parts of the volume bound elsewhere (subPath) belong to a target that is judged itself
		if only && m.device == staged.device && m.root == "/" && m.path != staging && m.path != target {
			return fmt.Errorf("%w: %s", ErrPublishedElsewhere, m.path)
		}
	}
	present, err := mountedAt(target)
	if err != nil {
		return err
	}
	if present != nil && present.device == staged.device && present.readOnly == readOnly {
		return nil
	}
	// left over from an export that has ended
	if err := unmountAll(target, true); err != nil {
		return err
	}
	if err := os.MkdirAll(target, 0o750); err != nil {
		return fmt.Errorf("cannot make the target path: %w", err)
	}
	if err := unix.Mount(staging, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot bind the volume to %s: %w", target, err)
	}
	if readOnly {
		if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return errors.Join(fmt.Errorf("cannot make %s read-only: %w", target, err), unmountAll(target, true))
		}
	}
	return nil
}

// Expand grows the file system mounted at path, staged or published, while it is in use.
func (v *Volumes) Expand(ctx context.Context, path string, size int64) error {
	mounted, err := mountedAt(path)
	if err != nil {
		return err
	}
	if mounted == nil || !mounted.isLoop() {
		return fmt.Errorf("%w: %s", ErrNotMounted, path)
	}
	if mounted.kind != XFS {
		return fmt.Errorf("%w, and %s has %s", ErrGrowsNot, path, mounted.kind)
	}
	if err := growLoop(mounted.loopDevice(), size); err != nil {
		return err
	}
	return growFileSystem(ctx, *mounted)
}

// Unpublish removes the target, mounted or not.
func (v *Volumes) Unpublish(id, target string) error {
	err := within(unmountTimeout, func() error { return unmountAll(target, false) })
	if err != nil {
		if !errors.Is(err, errTooLong) && v.server(id).answers(answerTimeout) {
			return err // somebody works in it
		}
		if err := unmountAll(target, true); err != nil {
			return err
		}
	}
	// only the empty mount point: were data in it, they would be somebody's
	if err := os.Remove(target); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot remove the target path: %w", err)
	}
	return nil
}
