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

// prepareFileSystem makes file an ext4 file system that can be mounted: a blank one is formatted, a used one is repaired as far as a
// journal replay goes. It never formats over anything.
func prepareFileSystem(ctx context.Context, file string) error {
	blank, err := isBlank(file)
	if err != nil {
		return err
	}
	if blank {
		// volumes are born as zeroes, so inode tables and journal need not be written; mke2fs writes its superblock last, so
		// a format cut short leaves a blank volume again
		return run(ctx, 0, "mkfs.ext4", "-q", "-F", "-E", "nodiscard,assume_storage_prezeroed=1", file)
	}
	// 1: errors were corrected
	return run(ctx, 1, "e2fsck", "-p", file)
}

// superblockEnd is behind the superblock of ext4, in the first page of the volume.
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
