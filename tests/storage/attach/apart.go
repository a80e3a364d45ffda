package attach

import (
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// Why nbdfuse gets a mount namespace of its own.
//
// When a node loses power all its processes die at once, and whichever lets go of the node's mount namespace last unmounts what is in it:
// the ext4 file systems. Unmounting writes to the loop device, which waits for the FUSE connection, which fails its requests only
// once nbdfuse has closed it. Were that last process an nbdfuse, it would wait for itself, for ever: the kernel closes its files
// after it has unmounted. So nbdfuse must hold no ext4 file system, and lives where there are none. What it mounts itself must show
// in the node, so this driver's folder is the one mount that both namespaces share.

// ApartCommand is the word with which this program starts itself to run nbdfuse apart; ServeApart is what it then does.
const ApartCommand = "serve-apart"

// ServeApart takes a folder and a command line, leaves the node's mount namespace and becomes the command. The caller has cloned the
// namespace already.
func ServeApart(arguments []string) error {
	if len(arguments) < 2 {
		return fmt.Errorf("%s is started by the node plugin only", ApartCommand)
	}
	folder, command := arguments[0], arguments[1:]
	shared, err := unix.OpenTree(unix.AT_FDCWD, folder, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("cannot open the mount %s: %w", folder, err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot part from the node's mounts: %w", err)
	}
	// only now, since until here mounts of the node still came in
	table, err := mountTable()
	if err != nil {
		return err
	}
	for i := len(table) - 1; i >= 0; i-- {
		if m := table[i]; m.isLoop() || strings.HasPrefix(m.kind, "fuse") {
			if err := unix.Unmount(m.path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
				return fmt.Errorf("cannot let go of %s: %w", m.path, err)
			}
		}
	}
	if err := unix.MoveMount(shared, "", unix.AT_FDCWD, folder, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("cannot bring the mount %s along: %w", folder, err)
	}
	program, err := exec.LookPath(command[0])
	if err != nil {
		return fmt.Errorf("cannot find %s, of the Debian package libnbd-bin: %w", command[0], err)
	}
	return unix.Exec(program, command, os.Environ())
}

// apart makes the command run in a copy of this mount namespace, through ServeApart. Go's own Unshareflags would cut the sharing at once.
func apart(folder string, command ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", append([]string{ApartCommand, folder}, command...)...)
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNS}
	return cmd
}

// shareFolder makes the driver's folder a mount of its own, which may then be shared without sharing anything else. Being a tmpfs it
// also ends with the node.
func shareFolder(folder string) error {
	mounted, err := mountedAt(folder)
	if err != nil || mounted != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("cannot make the folder of the attached volumes: %w", err)
	}
	if err := unix.Mount("test-storage", folder, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "mode=0700"); err != nil {
		return fmt.Errorf("cannot mount a tmpfs at %s: %w", folder, err)
	}
	// first out of the group that it was born into, then into one of its own
	for _, kind := range []uintptr{unix.MS_PRIVATE, unix.MS_SHARED} {
		if err := unix.Mount("", folder, "", kind, ""); err != nil {
			return fmt.Errorf("cannot share the mount %s: %w", folder, err)
		}
	}
	return nil
}
