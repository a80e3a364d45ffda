package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const (
	writeSynced = `printf %s "$2" > "$1/row" && sync "$1/row"`
	readRow     = `cat "$1/row"`
)

func TestWhatWasSyncedIsThereOnTheNextNode(t *testing.T) {
	c := newCluster(t)
	n1, n2, orders := c.node("n1"), c.node("n2"), c.createVolume("orders")
	n1.mustShell(writeSynced, orders.mount(n1, "old"), "kept")
	orders.release(n1, "old")
	if got := n2.mustShell(readRow, orders.mount(n2, "new")); got != "kept" {
		t.Errorf("n2 reads %q", got)
	}
	orders.release(n2, "new")
	c.wantClean()
}

func TestPowerOffLosesOnlyWhatWasNotSynced(t *testing.T) {
	c := newCluster(t)
	n1, n2, orders := c.node("n1"), c.node("n2"), c.createVolume("orders")
	pod := orders.mount(n1, "old")
	n1.mustShell(writeSynced, pod, "kept")
	n1.mustShell(`printf gone > "$1/unsynced"`, pod)
	n1.powerOff()
	orders.detach(n1)
	pod = orders.mount(n2, "new")
	if got := n2.mustShell(readRow, pod); got != "kept" {
		t.Errorf("n2 reads %q", got)
	}
	if got := n2.mustShell(`cat "$1/unsynced" || true`, pod); strings.Contains(got, "gone") && !strings.Contains(got, "No such file") {
		t.Errorf("what was only in the page cache of n1 is on the volume: %q", got)
	}
	c.wantClean()
}

// The kernel once waited for itself here: see attach/apart.go.
func TestPowerOffEndsEveryProcessOfTheNodeAtOnce(t *testing.T) {
	c := newCluster(t)
	n1 := c.node("n1")
	for round := range 5 {
		for i := range 3 {
			v := c.createVolume(fmt.Sprintf("orders-%d", i))
			path := v.mountAt(n1, v.id)
			n1.mustShell(writeSynced, path, strconv.Itoa(round))
			n1.mustShell(`dd if=/dev/zero of="$1/unsynced" bs=1M count=4 status=none`, path)
		}
		n1.powerOff()
		n1.powerOn()
	}
	c.wantClean()
}

func TestANodeThatComesBackStagesAgainOverWhatItsDiskRemembers(t *testing.T) {
	c := newCluster(t)
	n1, orders := c.node("n1"), c.createVolume("orders")
	export := orders.attach(n1)
	orders.stage(n1, export)
	n1.mustShell(writeSynced, n1.staging(), "kept")
	n1.powerOff()
	n1.powerOn()
	// the kubelet cleans up first what it believes to be mounted
	c.must(orders.tryUnpublish(n1, "old"))
	orders.unstage(n1)
	orders.stage(n1, export)
	if got := n1.mustShell(readRow, n1.staging()); got != "kept" {
		t.Errorf("n1 reads %q", got)
	}
	c.wantClean()
}

func TestARevokedNodeMeetsErrorsAndIsCleanedUpWhileAProcessHoldsOn(t *testing.T) {
	c := newCluster(t)
	n1, n2, orders := c.node("n1"), c.node("n2"), c.createVolume("orders")
	pod := orders.mount(n1, "old")
	n1.mustShell(writeSynced, pod, "one")
	holder := c.background("holder", n1.command("sh", "-c", `exec 3>>"$1/row"; while sleep 1; do :; done`, "sh", pod))
	c.waitFor("the process holds the file", func() bool {
		out, _ := exec.Command("sh", "-c", `ls -l /proc/[0-9]*/fd/3 2>/dev/null`).Output()
		return strings.Contains(string(out), pod+"/row")
	})
	orders.detach(n1)
	newPod := orders.mount(n2, "new")
	n2.mustShell(writeSynced, newPod, "two")
	if out, err := n1.shell(writeSynced, pod, "late"); err == nil {
		t.Errorf("n1 could write after its revocation: %s", out)
	}
	c.must(orders.tryUnpublish(n1, "old"))
	orders.unstage(n1)
	if holder.ProcessState != nil {
		t.Error("the process that holds the file should live on: nobody ended it")
	}
	if got := n2.mustShell(readRow, newPod); got != "two" {
		t.Errorf("n2 reads %q", got)
	}
	orders.release(n2, "new")
	if got := n1.mustShell(readRow, orders.mount(n1, "back")); got != "two" {
		t.Errorf("back on n1 the row is %q", got)
	}
	found := c.check()
	if found.Refused == 0 || !found.Clean() {
		t.Errorf("the log should show that n1 tried, and was refused: %+v", found)
	}
}

func TestStagingReplacesAMountWhoseExportHasEnded(t *testing.T) {
	c := newCluster(t)
	n1, orders := c.node("n1"), c.createVolume("orders")
	pod := orders.mount(n1, "pod")
	n1.mustShell(writeSynced, pod, "kept")
	orders.detach(n1)
	// same node, same paths, new export: nothing was unstaged in between
	if got := n1.mustShell(readRow, orders.mount(n1, "pod")); got != "kept" {
		t.Errorf("n1 reads %q", got)
	}
	n1.mustShell(writeSynced, pod, "again")
	orders.release(n1, "pod")
}

func TestTheMountOutlivesTheNodePlugin(t *testing.T) {
	c := newCluster(t)
	n1, orders := c.node("n1"), c.createVolume("orders")
	export := orders.attach(n1)
	orders.stage(n1, export)
	c.must(orders.tryPublish(n1, "pod", oncePod))
	pid := strings.Fields(n1.mustShell(`pgrep -f "node --driver"`))[0]
	n1.mustShell(`kill -9 "$1"`, pid)
	_ = n1.plugin.Wait()
	n1.mustShell(writeSynced, n1.target("pod"), "kept")
	n1.startPlugin()
	before := n1.mustShell(`pgrep nbdfuse`)
	orders.stage(n1, export)
	c.must(orders.tryPublish(n1, "pod", oncePod))
	if after := n1.mustShell(`pgrep nbdfuse`); after != before {
		t.Errorf("staging again started the volume afresh: process %s became %s", before, after)
	}
	orders.release(n1, "pod")
}

func TestAPausedNodeWritesNothingWhenItWakes(t *testing.T) {
	late := pauseAndWake(t, "revoke")
	if found := late.check(); !found.Clean() || found.Refused == 0 {
		t.Errorf("every write of the woken node must be refused, and be in the log: %+v", found)
	}
}

// The positive control: the same with a host that lies must be found out.
func TestALyingHostIsFoundOutWhenThePausedNodeWakes(t *testing.T) {
	late := pauseAndWake(t, "lie")
	if found := late.check(); found.LateWrites == 0 || found.SecondWriters == 0 || found.First == nil || found.First.Node != "n1" {
		t.Errorf("the late writes of n1 must be found: %+v", found)
	}
}

func pauseAndWake(t *testing.T, mode string) *cluster {
	c := newCluster(t)
	c.ctl("mode", "all", mode)
	n1, n2, orders := c.node("n1"), c.node("n2"), c.createVolume("orders")
	pod := orders.mount(n1, "old")
	n1.mustShell(writeSynced, pod, "one")
	n1.mustShell(`printf late > "$1/unsynced"`, pod)
	// signalled and paused from outside, so that it acts as soon as it wakes
	done := make(chan struct{})
	waker := n1.command("sh", "-c", `kill -STOP $$; sync "$1/unsynced"`, "sh", pod)
	c.must(waker.Start())
	go func() { defer close(done); _ = waker.Wait() }()
	c.waitFor("the writer stands still", func() bool {
		out, _ := exec.Command("sh", "-c", `grep -h ^State /proc/[0-9]*/status`).Output()
		return strings.Contains(string(out), "T (stopped)")
	})
	n1.signalAll(syscall.SIGSTOP)
	orders.detach(n1)
	n2.mustShell(writeSynced, orders.mount(n2, "new"), "two")
	n1.signalAll(syscall.SIGCONT, waker)
	<-done
	return c
}

func TestABusyStorageLetsGoOfANodeWithoutPowerOnly(t *testing.T) {
	c := newCluster(t)
	n1, n2, orders := c.node("n1"), c.node("n2"), c.createVolume("orders")
	n1.mustShell(writeSynced, orders.mount(n1, "old"), "kept")
	c.ctl("mode", orders.id, "refuse")
	c.wantCode(orders.tryDetach(n1), codes.FailedPrecondition)
	n1.powerOff()
	c.waitFor("the storage sees that n1 is gone", func() bool { return orders.tryDetach(n1) == nil })
	if got := n2.mustShell(readRow, orders.mount(n2, "new")); got != "kept" {
		t.Errorf("n2 reads %q", got)
	}
	c.wantClean()
}

func TestUnstageEndsEvenIfTheDeviceNeitherAnswersNorFails(t *testing.T) {
	c := newCluster(t)
	n1, orders := c.node("n1"), c.createVolume("orders")
	orders.stage(n1, orders.attach(n1))
	n1.mustShell(`printf x > "$1/unsynced"`, n1.staging())
	pid, err := strconv.Atoi(n1.mustShell(`pgrep nbdfuse`))
	c.must(err)
	n1.mustShell(`kill -STOP "$1"`, strconv.Itoa(pid))
	began := time.Now()
	orders.unstage(n1)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestAVolumeInUseOnALiveNodeIsNotTakenFromUnderItsUser(t *testing.T) {
	c := newCluster(t)
	n1, orders := c.node("n1"), c.createVolume("orders")
	pod := orders.mount(n1, "pod")
	user := c.background("user", n1.command("sh", "-c", `cd "$1" && echo here > row && read -r forever < "$2"`, "sh", pod, fifo(c)))
	c.waitFor("the user is in", func() bool { _, err := n1.shell(readRow, pod); return err == nil })
	c.wantCode(orders.tryUnpublish(n1, "pod"), codes.Internal)
	for _, pid := range strings.Fields(n1.mustShell(`pgrep -f forever`)) {
		_, _ = n1.shell(`kill -9 "$1"`, pid)
	}
	_ = user.Wait()
	orders.release(n1, "pod")
}

func fifo(c *cluster) string {
	path := filepath.Join(c.folder, "fifo")
	c.must(syscall.Mkfifo(path, 0o600))
	return path
}

func TestAFullVolumeThatIsExpandedTakesWritesAgainWithoutBeingUnmounted(t *testing.T) {
	c := newCluster(t)
	const size = 320 << 20 // below 300 MiB there is no XFS
	n1, n2, orders := c.node("n1"), c.node("n2"), c.createVolumeOf("orders", size, growing)
	pod := orders.mount(n1, "old")
	n1.mustShell(writeSynced, pod, "kept")
	user := c.background("user", n1.command("sh", "-c", `exec 3>>"$1/held"; echo open >&3; while sleep 1; do :; done`, "sh", pod))
	before := blocks(n1, pod)
	if before > size {
		t.Fatalf("the file system has %d bytes on a volume of %d", before, int64(size))
	}
	if out, err := n1.shell(`dd if=/dev/zero of="$1/filler" bs=4k`, pod); err == nil || !strings.Contains(out, "No space left") {
		t.Fatalf("the volume was never full: %v: %s", err, out)
	}
	if out, err := n1.shell(`dd if=/dev/zero of="$1/more" bs=1M count=1 conv=fsync`, pod); err == nil {
		t.Fatalf("a full volume took a write: %s", out)
	}
	c.wantCode(orders.tryNodeExpand(n1, n1.target("old"), 2*size), codes.OutOfRange)
	c.wantCode(orders.tryNodeExpand(n1, filepath.Join(c.folder, "elsewhere"), size), codes.FailedPrecondition)
	for range 2 {
		if got := orders.expand(2 * size); got != 2*size {
			t.Fatalf("the volume has %d bytes", got)
		}
		c.must(orders.tryNodeExpand(n1, n1.target("old"), 2*size))
	}
	if after := blocks(n1, pod); after < before+size*9/10 || after > 2*size {
		t.Errorf("the file system had %d bytes and now has %d", before, after)
	}
	n1.mustShell(`dd if=/dev/zero of="$1/more" bs=1M count=32 conv=fsync status=none`, pod)
	if user.ProcessState != nil {
		t.Error("who had a file open should not have noticed")
	}
	_ = user.Process.Kill()
	for _, pid := range strings.Fields(n1.mustShell(`pgrep -f held`)) {
		_, _ = n1.shell(`kill -9 "$1"`, pid)
	}
	_ = user.Wait()
	c.waitFor("nobody has a file of the volume open", func() bool { return orders.tryUnpublish(n1, "old") == nil })
	orders.release(n1, "old")
	pod = orders.mount(n2, "new")
	if got := n2.mustShell(readRow, pod); got != "kept" {
		t.Errorf("n2 reads %q", got)
	}
	if size := n2.mustShell(`stat -c %s "$1/more"`, pod); size != strconv.Itoa(32<<20) {
		t.Errorf("what was written into the new space has %s bytes", size)
	}
	orders.release(n2, "new")
	c.wantClean()
}

func TestAVolumeWithAFileSystemThatDoesNotGrowInUseSaysSo(t *testing.T) {
	c := newCluster(t)
	n1, orders := c.node("n1"), c.createVolume("orders")
	pod := orders.mount(n1, "pod")
	before := blocks(n1, pod)
	if before > volumeSize {
		t.Errorf("the file system has %d bytes on a volume of %d", before, int64(volumeSize))
	}
	orders.expand(2 * volumeSize)
	c.wantCode(orders.tryNodeExpand(n1, pod, 2*volumeSize), codes.FailedPrecondition)
	if after := blocks(n1, pod); after != before {
		t.Errorf("the file system had %d bytes and has %d", before, after)
	}
	orders.release(n1, "pod")
}

// blocks is the size of the file system at a path, in bytes.
func blocks(m *machine, path string) int64 {
	m.Helper()
	fields := strings.Fields(m.mustShell(`stat --file-system --format="%b %S" "$1"`, path))
	count, err := strconv.ParseInt(fields[0], 10, 64)
	m.must(err)
	size, err := strconv.ParseInt(fields[1], 10, 64)
	m.must(err)
	return count * size
}

func TestAVolumeForOnePodHasOneTarget(t *testing.T) {
	c := newCluster(t)
	n1, orders := c.node("n1"), c.createVolume("orders")
	orders.mount(n1, "one")
	c.must(orders.tryPublish(n1, "one", oncePod))
	c.wantCode(orders.tryPublish(n1, "two", oncePod), codes.FailedPrecondition)
	c.must(orders.tryPublish(n1, "two", once))
	c.must(orders.tryUnpublish(n1, "two"))
	c.must(orders.tryUnpublish(n1, "two"))
	orders.release(n1, "one")
	c.wantCode(orders.tryPublish(n1, "one", oncePod), codes.FailedPrecondition)
}

func TestTwoVolumesOfOneNodeAreIndependent(t *testing.T) {
	c := newCluster(t)
	n1, orders, bills := c.node("n1"), c.createVolume("orders"), c.createVolume("bills")
	orders.stage(n1, orders.attach(n1))
	pod := bills.mountAt(n1, "bills")
	orders.detach(n1)
	if _, err := n1.shell(writeSynced, n1.staging(), "late"); err == nil {
		t.Error("the revoked volume could be written")
	}
	n1.mustShell(writeSynced, pod, "fine")
	c.must(unstageAt(bills, n1, "bills"))
}

func TestTheKubeletLearnsTheDriverFromTheRegistrationSocket(t *testing.T) {
	c := newCluster(t)
	c.node("n1")
	socket := filepath.Join(c.folder, "n1-registry", driverName+"-reg.sock")
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	c.must(err)
	defer conn.Close()
	info, err := registration.NewRegistrationClient(conn).GetInfo(c.within(callLimit), &registration.InfoRequest{}, grpc.WaitForReady(true))
	c.must(err)
	if info.GetType() != "CSIPlugin" || info.GetName() != driverName || info.GetEndpoint() != c.socket("n1") {
		t.Errorf("the kubelet is told %v", info)
	}
}
