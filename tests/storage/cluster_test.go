package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const callLimit = 60 * time.Second

// machine is a node: mount and process namespaces that end with its first process, and a node plugin in them.
type machine struct {
	*cluster
	name   string
	init   *exec.Cmd
	plugin *exec.Cmd
	conn   *grpc.ClientConn
	csi    csi.NodeClient
}

func (c *cluster) node(name string) *machine {
	c.Helper()
	m := &machine{cluster: c, name: name}
	m.powerOn()
	return m
}

// powerOn starts the node; its disk (the kubelet's folder) is what it was, its /run is new.
func (m *machine) powerOn() {
	m.Helper()
	ready := filepath.Join(m.folder, m.name+".ready")
	_ = os.Remove(ready)
	script := `mount --make-rshared / && mount -t tmpfs tmpfs /run && echo > "$0" && exec sleep infinity`
	m.init = m.background(m.name, exec.Command("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
		"sh", "-c", script, ready))
	m.waitFor(m.name+" has power", func() bool { _, err := os.Stat(ready); return err == nil })
	m.startPlugin()
}

func (m *machine) startPlugin() {
	m.Helper()
	m.plugin = m.background(m.name, m.command(os.Args[0], "node", "--driver", driverName, "--node", m.name,
		"--endpoint", "unix://"+m.socket(m.name), "--registration", filepath.Join(m.folder, m.name+"-registry"), "--host", hostAddress))
	m.conn = m.dial(m.name)
	m.csi = csi.NewNodeClient(m.conn)
	m.waitFor("the storage host knows "+m.name, func() bool { return strings.Contains(m.ctl("state"), strconv.Quote(m.name)) })
}

// first is the node's process 1, seen from the tests' namespace.
func (m *machine) first() int {
	m.Helper()
	path := fmt.Sprintf("/proc/%d/task/%d/children", m.init.Process.Pid, m.init.Process.Pid)
	text, err := os.ReadFile(path)
	if err != nil {
		m.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		m.Fatal(err)
	}
	return pid
}

func (m *machine) command(name string, arguments ...string) *exec.Cmd {
	m.Helper()
	return exec.Command("nsenter", append([]string{"--target", strconv.Itoa(m.first()), "--mount", "--pid", "--", name}, arguments...)...)
}

// shell runs a script in the node; $1 is what the caller gives.
func (m *machine) shell(script string, arguments ...string) (string, error) {
	m.Helper()
	output, err := m.command("sh", append([]string{"-c", script, "sh"}, arguments...)...).CombinedOutput()
	return strings.TrimSpace(string(output)), err
}

func (m *machine) mustShell(script string, arguments ...string) string {
	m.Helper()
	output, err := m.shell(script, arguments...)
	if err != nil {
		m.Fatalf("on %s: %s: %v: %s", m.name, script, err, output)
	}
	return output
}

// processes are all of the node's, seen from outside.
func (m *machine) processes() []int {
	m.Helper()
	namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", m.first()))
	if err != nil {
		m.Fatal(err)
	}
	var found []int
	folders, _ := filepath.Glob("/proc/[0-9]*")
	for _, folder := range folders {
		if of, err := os.Readlink(folder + "/ns/pid"); err == nil && of == namespace {
			pid, err := strconv.Atoi(filepath.Base(folder))
			if err != nil {
				m.Fatal(err)
			}
			found = append(found, pid)
		}
	}
	return found
}

func (m *machine) powerOff() {
	m.Helper()
	if err := syscall.Kill(m.first(), syscall.SIGKILL); err != nil {
		m.Fatal(err)
	}
	gone := make(chan struct{})
	go func() { defer close(gone); _ = m.init.Wait() }()
	select {
	case <-gone:
	case <-time.After(20 * time.Second):
		m.Fatalf("%s has no power and still has processes: one of them waits in the kernel", m.name)
	}
}

// signalAll stops or continues the whole node. nsenter and unshare stop themselves together with what they started, so those outside
// (outer, and the node's own) are continued too.
func (m *machine) signalAll(signal syscall.Signal, outer ...*exec.Cmd) {
	m.Helper()
	pids := m.processes()
	if signal == syscall.SIGCONT {
		for _, command := range append(outer, m.init, m.plugin) {
			pids = append(pids, command.Process.Pid)
		}
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, signal); err != nil {
			m.Fatal(err)
		}
	}
}

func (m *machine) staging() string { return filepath.Join(m.folder, m.name+"-kubelet", "staging") }
func (m *machine) target(pod string) string {
	return filepath.Join(m.folder, m.name+"-kubelet", "pods", pod)
}

func capability(mode csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: "ext4"}},
	}
}

// growing is the same on a file system that can be expanded.
func growing(mode csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability {
	wanted := capability(mode)
	wanted.GetMount().FsType = "xfs"
	return wanted
}

const (
	oncePod = csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	once    = csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
)

// volume is a CSI volume as a test moves it about; each method fails the test if the call fails, each try method returns the error.
type volume struct {
	*cluster
	id         string
	capability func(csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability
}

func (c *cluster) createVolume(name string) volume {
	c.Helper()
	return c.createVolumeOf(name, volumeSize, capability)
}

func (c *cluster) createVolumeOf(
	name string, size int64, capability func(csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability,
) volume {
	c.Helper()
	made, err := c.controller.CreateVolume(c.within(callLimit), &csi.CreateVolumeRequest{
		Name: name, VolumeCapabilities: []*csi.VolumeCapability{capability(oncePod)},
		CapacityRange: &csi.CapacityRange{RequiredBytes: size},
	})
	if err != nil {
		c.Fatal(err)
	}
	return volume{cluster: c, id: made.GetVolume().GetVolumeId(), capability: capability}
}

// expand makes the volume larger; what is mounted of it follows by tryNodeExpand.
func (v volume) expand(size int64) int64 {
	v.Helper()
	answer, err := v.controller.ControllerExpandVolume(v.within(callLimit), &csi.ControllerExpandVolumeRequest{
		VolumeId: v.id, CapacityRange: &csi.CapacityRange{RequiredBytes: size},
	})
	v.must(err)
	if !answer.GetNodeExpansionRequired() {
		v.Error("nobody would tell the node that its volume has grown")
	}
	return answer.GetCapacityBytes()
}

func (v volume) tryNodeExpand(m *machine, path string, size int64) error {
	_, err := m.csi.NodeExpandVolume(v.within(callLimit), &csi.NodeExpandVolumeRequest{
		VolumeId: v.id, VolumePath: path, StagingTargetPath: m.staging(), CapacityRange: &csi.CapacityRange{RequiredBytes: size},
	})
	return err
}

func (v volume) attach(m *machine) map[string]string {
	v.Helper()
	answer, err := v.controller.ControllerPublishVolume(v.within(callLimit), &csi.ControllerPublishVolumeRequest{
		VolumeId: v.id, NodeId: m.name, VolumeCapability: v.capability(oncePod),
	})
	v.must(err)
	return answer.GetPublishContext()
}

func (v volume) tryDetach(m *machine) error {
	_, err := v.controller.ControllerUnpublishVolume(v.within(callLimit), &csi.ControllerUnpublishVolumeRequest{VolumeId: v.id, NodeId: m.name})
	return err
}

func (v volume) detach(m *machine) {
	v.Helper()
	v.must(v.tryDetach(m))
}

func (v volume) stage(m *machine, context map[string]string) {
	v.Helper()
	_, err := m.csi.NodeStageVolume(v.within(callLimit), &csi.NodeStageVolumeRequest{
		VolumeId: v.id, PublishContext: context, StagingTargetPath: m.staging(), VolumeCapability: v.capability(oncePod),
	})
	v.must(err)
}

func (v volume) unstage(m *machine) {
	v.Helper()
	_, err := m.csi.NodeUnstageVolume(v.within(callLimit), &csi.NodeUnstageVolumeRequest{VolumeId: v.id, StagingTargetPath: m.staging()})
	v.must(err)
	if mounts := m.mustShell(`grep -e "$1" -e nbdfuse /proc/self/mounts || true`, m.staging()); mounts != "" {
		v.Errorf("after unstage %s still has mounts: %s", m.name, mounts)
	}
	// in one look: what has ended may be reaped between two
	if left := m.mustShell(`ps -o stat=,pid= -C nbdfuse | grep -v "^Z" || true`); left != "" {
		v.Errorf("after unstage %s still runs nbdfuse: %s", m.name, left)
	}
}

func (v volume) tryPublish(m *machine, pod string, mode csi.VolumeCapability_AccessMode_Mode) error {
	_, err := m.csi.NodePublishVolume(v.within(callLimit), &csi.NodePublishVolumeRequest{
		VolumeId: v.id, StagingTargetPath: m.staging(), TargetPath: m.target(pod), VolumeCapability: v.capability(mode),
	})
	return err
}

func (v volume) tryUnpublish(m *machine, pod string) error {
	_, err := m.csi.NodeUnpublishVolume(v.within(callLimit), &csi.NodeUnpublishVolumeRequest{VolumeId: v.id, TargetPath: m.target(pod)})
	return err
}

// mount takes the volume all the way to a pod's folder and returns that.
func (v volume) mount(m *machine, pod string) string {
	v.Helper()
	v.stage(m, v.attach(m))
	v.must(v.tryPublish(m, pod, oncePod))
	return m.target(pod)
}

// release takes it back from a node that is well.
func (v volume) release(m *machine, pod string) {
	v.Helper()
	v.must(v.tryUnpublish(m, pod))
	v.unstage(m)
	v.detach(m)
}

func (c *cluster) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) wantCode(err error, want codes.Code) {
	c.Helper()
	if status.Code(err) != want {
		c.Fatalf("want code %v, got %v", want, err)
	}
}

func (c *cluster) wantClean() {
	c.Helper()
	if found := c.check(); !found.Clean() || found.Accepted == 0 {
		c.Errorf("the log should be clean and not empty: %+v", found)
	}
}

// mountAt and unstageAt stage a second volume at a path of its own.
func (v volume) mountAt(m *machine, name string) string {
	v.Helper()
	path := filepath.Join(m.folder, m.name+"-kubelet", name)
	_, err := m.csi.NodeStageVolume(v.within(callLimit), &csi.NodeStageVolumeRequest{
		VolumeId: v.id, PublishContext: v.attach(m), StagingTargetPath: path, VolumeCapability: v.capability(oncePod),
	})
	v.must(err)
	return path
}

func unstageAt(v volume, m *machine, name string) error {
	path := filepath.Join(m.folder, m.name+"-kubelet", name)
	_, err := m.csi.NodeUnstageVolume(v.within(callLimit), &csi.NodeUnstageVolumeRequest{VolumeId: v.id, StagingTargetPath: path})
	return err
}
