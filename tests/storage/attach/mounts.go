package attach

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// mountPoint is one line of this mount namespace's table.
type mountPoint struct {
	// device is "MAJOR:MINOR", equal for all mounts of one file system
	device string
	// root is the folder of the file system that is mounted; "/" unless it is a bind mount of a part
	root string
	path string
	// kind is the type of file system
	kind     string
	readOnly bool
}

// isLoop is true for file systems on loop devices, which is what volumes are.
func (m mountPoint) isLoop() bool { return strings.HasPrefix(m.device, strconv.Itoa(loopMajor)+":") }

// loopDevice is the device file of a file system on a loop device.
func (m mountPoint) loopDevice() string {
	_, number, _ := strings.Cut(m.device, ":")
	return loopPath(number)
}

// mountTable reads the table. Nothing here calls stat on a mounted path: on a dead device that may fail or hang.
func mountTable() ([]mountPoint, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("cannot read the mount table: %w", err)
	}
	defer file.Close()
	var table []mountPoint
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 {
			continue
		}
		m := mountPoint{device: fields[2], root: unescape(fields[3]), path: unescape(fields[4])}
		m.readOnly = strings.HasPrefix(fields[5]+",", "ro,")
		// the type stands behind a dash, which follows a varying number of fields
		if dash := slices.Index(fields[6:], "-"); dash >= 0 && 6+dash+1 < len(fields) {
			m.kind = fields[6+dash+1]
		}
		table = append(table, m)
	}
	return table, nil
}

// unescape undoes the \040 notation of the mount table.
func unescape(text string) string {
	var plain strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+3 < len(text) {
			if code, err := strconv.ParseUint(text[i+1:i+4], 8, 8); err == nil {
				plain.WriteByte(byte(code))
				i += 3
				continue
			}
		}
		plain.WriteByte(text[i])
	}
	return plain.String()
}

// mountedAt returns what is mounted at path, the topmost if several are stacked, or nil.
func mountedAt(path string) (*mountPoint, error) {
	table, err := mountTable()
	if err != nil {
		return nil, err
	}
	var found *mountPoint
	for i := range table {
		if table[i].path == path {
			found = &table[i]
		}
	}
	return found, nil
}

// unmountAll removes everything mounted at path. With force it does so without waiting for the file system: its users keep what
// they have open, and meet errors.
func unmountAll(path string, force bool) error {
	for {
		mounted, err := mountedAt(path)
		if err != nil || mounted == nil {
			return err
		}
		flags := unix.UMOUNT_NOFOLLOW
		if force {
			flags |= unix.MNT_DETACH
		}
		if err := unix.Unmount(path, flags); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("cannot unmount %s: %w", path, err)
		}
	}
}

// errTooLong says that the kernel is still at it: a device that neither answers nor fails.
var errTooLong = errors.New("no end within the time allowed")

// within runs what may hang in the kernel and stops waiting for it after a while. The call itself cannot be stopped; it ends when
// the device's server is killed.
func within(limit time.Duration, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return errTooLong
	}
}
