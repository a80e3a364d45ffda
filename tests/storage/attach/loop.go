package attach

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// loopMajor is the major number of loop devices.
const loopMajor = 7

// withLoop gives use the path of a loop device over the first size bytes of file. The device frees itself once nothing uses it any more, so a mount made
// by use keeps it, and everything else (a failure, a crash, the death of the node) lets it go.
func withLoop(file string, size int64, use func(device string) error) error {
	backing, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("cannot open the attached volume: %w", err)
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("this kernel offers no loop devices: %w", err)
	}
	defer control.Close()
	for {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return fmt.Errorf("the kernel has no free loop device: %w", err)
		}
		device, err := openLoop(number)
		if err != nil {
			return err
		}
		info := unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR, Sizelimit: uint64(size)}
		config := &unix.LoopConfig{Fd: uint32(backing.Fd()), Info: info}
		err = unix.IoctlLoopConfigure(int(device.Fd()), config)
		if errors.Is(err, unix.EBUSY) {
			// another process, perhaps of another node, was quicker
			_ = device.Close()
			continue
		}
		if err == nil {
			err = use(device.Name())
		} else {
			err = fmt.Errorf("cannot set up %s: %w", device.Name(), err)
		}
		return errors.Join(err, device.Close())
	}
}

func loopPath(number string) string { return "/dev/loop" + number }

// growLoop makes a loop device in use larger.
func growLoop(path string, size int64) error {
	device, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("cannot open %s: %w", path, err)
	}
	defer device.Close()
	info, err := unix.IoctlLoopGetStatus64(int(device.Fd()))
	if err != nil {
		return fmt.Errorf("cannot look at %s: %w", path, err)
	}
	info.Sizelimit = uint64(size)
	if err := unix.IoctlLoopSetStatus64(int(device.Fd()), info); err != nil {
		return fmt.Errorf("cannot make %s larger: %w", path, err)
	}
	return nil
}

// openLoop makes the device file where /dev is not the kernel's own and lacks it.
func openLoop(number int) (*os.File, error) {
	path := loopPath(strconv.Itoa(number))
	device, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(loopMajor, uint32(number)))); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("cannot make %s: %w", path, err)
		}
		device, err = os.OpenFile(path, os.O_RDWR, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", path, err)
	}
	return device, nil
}
