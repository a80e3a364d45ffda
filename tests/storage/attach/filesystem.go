package attach

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// The file systems on offer. Ext4 is what most drivers make. It grows in use only for a process with CAP_SYS_RESOURCE, which machines
// may withhold even from root; XFS asks for no more than mounting does.
const (
	Ext4 = "ext4"
	XFS  = "xfs"
)

// ErrGrowsNot: a file system of this kind cannot be expanded.
var ErrGrowsNot = errors.New("only volumes with file system xfs can be expanded")

// prepareFileSystem makes device a file system that can be mounted: a blank one is formatted, a used one is repaired as far as a journal
// replay goes. It never formats over anything.
func prepareFileSystem(ctx context.Context, device, kind string) error {
	blank, err := isBlank(device)
	if err != nil {
		return err
	}
	// volumes are born as zeroes, so nothing needs to be written to make it so; both programs write their superblock last or mark it
	// as unfinished, so a format cut short leaves no file system behind
	switch {
	case blank && kind == XFS:
		return run(ctx, 0, "mkfs.xfs", "-q", "-K", device)
	case blank:
		return run(ctx, 0, "mkfs.ext4", "-q", "-F", "-E", "nodiscard,assume_storage_prezeroed=1", device)
	case kind == XFS:
		return nil // the kernel replays the journal itself
	default:
		// 1: errors were corrected
		return run(ctx, 1, "e2fsck", "-p", device)
	}
}

// growFileSystem makes a mounted file system as large as its device; one that is that large already stays as it is.
func growFileSystem(ctx context.Context, m mountPoint) error {
	return run(ctx, 0, "xfs_growfs", "-d", m.path)
}

// superblockEnd is behind the superblocks of both file systems, in the first page of the volume.
const superblockEnd = 4096

func isBlank(file string) (bool, error) {
	volume, err := os.Open(file)
	if err != nil {
		return false, fmt.Errorf("cannot open the attached volume: %w", err)
	}
	defer volume.Close()
	start := make([]byte, superblockEnd)
	// an unreadable volume must never pass for a blank one
	if _, err := io.ReadFull(volume, start); err != nil {
		return false, fmt.Errorf("cannot read the attached volume: %w", err)
	}
	return bytes.Count(start, []byte{0}) == superblockEnd, nil
}

// run accepts exit codes up to good.
func run(ctx context.Context, good int, name string, arguments ...string) error {
	output, err := exec.CommandContext(ctx, name, arguments...).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 && exit.ExitCode() <= good {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s failed on the volume: %w: %s", name, err, strings.TrimSpace(string(output)))
	}
	return nil
}
