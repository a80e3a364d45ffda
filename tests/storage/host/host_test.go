package host

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"sqledge.io/test-storage/audit"
	"sqledge.io/test-storage/control"
	"sqledge.io/test-storage/journal"
)

// lab is a host with nodes n1 and n2 and the volume `orders`, on unix sockets.
type lab struct {
	*Host
	nbd, log string
	stop     func()
}

func newLab(t *testing.T) *lab {
	t.Helper()
	// not t.TempDir: its path may be too long for a unix socket
	folder, err := os.MkdirTemp("", "lab")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	l := startLab(t, folder)
	for _, node := range []string{"n1", "n2"} {
		if err := l.registerNode(node); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.createVolume(control.CreateVolume{Name: "orders", Driver: "d", Required: smallest}); err != nil {
		t.Fatal(err)
	}
	return l
}

func startLab(t *testing.T, folder string) *lab {
	t.Helper()
	l := &lab{nbd: filepath.Join(folder, "nbd"), log: filepath.Join(folder, "log")}
	api, err := net.Listen("unix", filepath.Join(folder, "api"))
	if err != nil {
		t.Fatal(err)
	}
	nbd, err := net.Listen("unix", l.nbd)
	if err != nil {
		t.Fatal(err)
	}
	if l.Host, err = Open(filepath.Join(folder, "data"), l.log, api, nbd); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Serve(ctx) }()
	l.stop = func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("the host ended with %v", err)
		}
		l.stop = func() {}
	}
	t.Cleanup(func() { l.stop() })
	return l
}

func (l *lab) attach(t *testing.T, node string) *nbdClient {
	t.Helper()
	export, err := l.publish("orders", node)
	if err != nil {
		t.Fatal(err)
	}
	client, err := connectNBD(t, l.nbd, export.Name)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func (l *lab) setModeOf(t *testing.T, volume, mode string) {
	t.Helper()
	if err := l.setMode(volume, mode); err != nil {
		t.Fatal(err)
	}
}

func (l *lab) entries(t *testing.T) []journal.Entry {
	t.Helper()
	text, err := os.ReadFile(l.log)
	if err != nil {
		t.Fatal(err)
	}
	var all []journal.Entry
	if err := journal.Read(bytes.NewReader(text), func(e journal.Entry) error { all = append(all, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

func (l *lab) judge(t *testing.T) audit.Findings {
	t.Helper()
	log, err := os.Open(l.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	found, err := audit.Judge(log, "")
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func expectCode(t *testing.T, err error, want codes.Code) {
	t.Helper()
	var refusal *control.Error
	if !errors.As(err, &refusal) || refusal.Code != want {
		t.Fatalf("want a refusal of code %v, got %v", want, err)
	}
}

func TestWhatOneNodeWroteTheNextNodeReads(t *testing.T) {
	l := newLab(t)
	first := l.attach(t, "n1")
	if first.size != deviceSize {
		t.Fatalf("the export has %d bytes, not %d", first.size, int64(deviceSize))
	}
	data := bytes.Repeat([]byte("row"), 1000)
	if err := errors.Join(first.write(4096, data), first.flush()); err != nil {
		t.Fatal(err)
	}
	if err := l.unpublish(t.Context(), "orders", "n1"); err != nil {
		t.Fatal(err)
	}
	got, err := l.attach(t, "n2").read(4096, uint32(len(data)))
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("n2 read something else: %v", err)
	}
}

func TestASecondNodeIsRefusedUntilTheFirstIsUnpublished(t *testing.T) {
	for _, mode := range []string{"revoke", "lie", "refuse", "fail", "slow:0"} {
		t.Run(mode, func(t *testing.T) {
			l := newLab(t)
			l.setModeOf(t, control.AllVolumes, mode)
			l.attach(t, "n1")
			_, err := l.publish("orders", "n2")
			expectCode(t, err, codes.FailedPrecondition)
			if !slices.ContainsFunc(l.entries(t), func(e journal.Entry) bool {
				return e.Event == journal.PublishRefused && e.Node == "n2"
			}) {
				t.Fatal("the refusal is not in the log")
			}
		})
	}
}

func TestPublishingTwiceToOneNodeGivesTheSameExport(t *testing.T) {
	l := newLab(t)
	one, err1 := l.publish("orders", "n1")
	two, err2 := l.publish("orders", "n1")
	if err := errors.Join(err1, err2); err != nil || one.Name != two.Name {
		t.Fatalf("%q and %q differ: %v", one.Name, two.Name, err)
	}
}

func TestARevokedExportRefusesItsConnectionsAndNewOnes(t *testing.T) {
	l := newLab(t)
	export, err := l.publish("orders", "n1")
	if err != nil {
		t.Fatal(err)
	}
	client, err := connectNBD(t, l.nbd, export.Name)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.unpublish(t.Context(), "orders", "n1"); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"write": client.write(0, make([]byte, 512)), "flush": client.flush(),
		"read": func() error { _, err := client.read(0, 512); return err }(),
	} {
		if err != errno(wireEIO) {
			t.Errorf("%s after the revocation answered %v, not EIO", what, err)
		}
	}
	if _, err := connectNBD(t, l.nbd, export.Name); err == nil {
		t.Error("a revoked export could be connected to again")
	}
	again, err := l.publish("orders", "n1")
	if err != nil || again.Name == export.Name {
		t.Fatalf("a new attachment must get a new name, got %q: %v", again.Name, err)
	}
	if err := client.write(0, make([]byte, 512)); err != errno(wireEIO) {
		t.Errorf("the old connection came back to life with the new attachment: %v", err)
	}
	if found := l.judge(t); found.Refused != 2 || found.Accepted != 0 || !found.Clean() {
		t.Errorf("the log should show two refused writes and no other: %+v", found)
	}
}

func TestALiarLeavesTheOldWriterAndTheLogShowsIt(t *testing.T) {
	l := newLab(t)
	old := l.attach(t, "n1")
	l.setModeOf(t, "orders", "lie")
	if err := l.unpublish(t.Context(), "orders", "n1"); err != nil {
		t.Fatal(err)
	}
	young := l.attach(t, "n2")
	if err := errors.Join(young.write(0, make([]byte, 512)), old.write(8192, []byte("late"))); err != nil {
		t.Fatalf("a lying host must accept both: %v", err)
	}
	found := l.judge(t)
	if found.LateWrites != 1 || found.SecondWriters != 1 || found.First == nil || found.First.Node != "n1" || found.First.Offset != 8192 {
		t.Fatalf("the check must find the one late write of n1: %+v", found)
	}
	// honest again: the forgotten export counts again
	l.setModeOf(t, "orders", "revoke")
	_, err := l.publish("orders", "n2")
	expectCode(t, err, codes.FailedPrecondition)
}

func TestModeFailNeverUnpublishes(t *testing.T) {
	l := newLab(t)
	client := l.attach(t, "n1")
	l.setModeOf(t, "orders", "fail")
	expectCode(t, l.unpublish(t.Context(), "orders", "n1"), codes.Internal)
	if err := client.write(0, make([]byte, 512)); err != nil {
		t.Fatalf("the export must still live: %v", err)
	}
}

func TestModeRefuseHoldsOnToAConnectedNodeAndLetsADeadOneGo(t *testing.T) {
	l := newLab(t)
	client := l.attach(t, "n1")
	l.setModeOf(t, "orders", "refuse")
	expectCode(t, l.unpublish(t.Context(), "orders", "n1"), codes.FailedPrecondition)
	_ = client.Close() // the power goes
	waitFor(t, "the host sees that the node is gone", func() bool {
		v, err := l.volume("orders")
		return err == nil && v.Exports[0].Connections == 0
	})
	if err := l.unpublish(t.Context(), "orders", "n1"); err != nil {
		t.Fatal(err)
	}
}

func TestModeSlowCountsFromTheFirstCallAndRevokesAtItsEnd(t *testing.T) {
	l := newLab(t)
	client := l.attach(t, "n1")
	const delay = 600 * time.Millisecond
	l.setModeOf(t, "orders", "slow:0.6")
	began := time.Now()
	short, cancel := context.WithTimeout(t.Context(), delay/3)
	defer cancel()
	expectCode(t, l.unpublish(short, "orders", "n1"), codes.DeadlineExceeded)
	if err := client.write(0, make([]byte, 512)); err != nil {
		t.Fatalf("the export must live until the end: %v", err)
	}
	if err := l.unpublish(t.Context(), "orders", "n1"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < delay || took > delay+delay/2 {
		t.Errorf("it took %v in all, not %v", took, delay)
	}
	if err := client.write(0, make([]byte, 512)); err != errno(wireEIO) {
		t.Errorf("the export was not revoked at the end: %v", err)
	}
}

func TestAWaitingSlowUnpublishEndsWhenTheModeIsTakenBack(t *testing.T) {
	l := newLab(t)
	l.attach(t, "n1")
	l.setModeOf(t, control.AllVolumes, "slow:3600")
	done := make(chan error, 1)
	go func() { done <- l.unpublish(t.Context(), "orders", "n1") }()
	waitFor(t, "the call is under way", func() bool {
		return slices.ContainsFunc(l.entries(t), func(e journal.Entry) bool { return e.Event == journal.UnpublishAsked })
	})
	l.setModeOf(t, control.AllVolumes, "revoke")
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the call still waits")
	}
}

func TestARestartedHostKeepsExportsModesAndRevocations(t *testing.T) {
	l := newLab(t)
	gone, err := l.publish("orders", "n1")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.unpublish(t.Context(), "orders", "n1"); err != nil {
		t.Fatal(err)
	}
	kept, err := l.publish("orders", "n2")
	if err != nil {
		t.Fatal(err)
	}
	l.setModeOf(t, "orders", "slow:7")
	l.stop()
	l = startLab(t, filepath.Dir(l.log))
	if _, err := connectNBD(t, l.nbd, gone.Name); err == nil {
		t.Error("the revoked export came back")
	}
	if _, err := connectNBD(t, l.nbd, kept.Name); err != nil {
		t.Errorf("the live export is gone: %v", err)
	}
	if v, err := l.volume("orders"); err != nil || v.Mode != "slow:7" {
		t.Errorf("the mode is %q: %v", v.Mode, err)
	}
	for i, entry := range l.entries(t) {
		if entry.Seq != uint64(i+1) {
			t.Fatalf("entry %d has the number %d", i+1, entry.Seq)
		}
	}
}

func TestAVolumeInUseIsNotDeleted(t *testing.T) {
	l := newLab(t)
	l.attach(t, "n1")
	expectCode(t, l.deleteVolume("orders"), codes.FailedPrecondition)
	if err := errors.Join(l.unpublish(t.Context(), "orders", "n1"), l.deleteVolume("orders"), l.deleteVolume("orders")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(l.volumePath("orders")); !os.IsNotExist(err) {
		t.Errorf("the file of the volume is still there: %v", err)
	}
}

func TestRequestsOutsideTheVolumeAreRefused(t *testing.T) {
	l := newLab(t)
	client := l.attach(t, "n1")
	if err := client.write(smallest-256, make([]byte, 512)); err != errno(wireENOSPC) {
		t.Errorf("a write past the end answered %v", err)
	}
	if got, err := client.read(smallest-256, 512); err != nil || !bytes.Equal(got, make([]byte, 512)) {
		t.Errorf("what the device has beyond the volume reads as zeroes, and not as %v: %v", got, err)
	}
	if _, err := client.read(1<<63, 512); err != errno(wireEINVAL) {
		t.Errorf("a read past the end of the device answered %v", err)
	}
	if err := client.write(smallest-512, make([]byte, 512)); err != nil {
		t.Errorf("the last block: %v", err)
	}
}

func TestAVolumeGrowsUnderItsNodeAndNeverShrinks(t *testing.T) {
	l := newLab(t)
	client := l.attach(t, "n1")
	for _, step := range []struct {
		required, limit, size int64
		code                  codes.Code
	}{
		{required: smallest, size: smallest},
		{required: 1, size: smallest},
		{required: smallest + 1, size: smallest + sizeStep},
		{required: smallest, size: smallest + sizeStep},
		{required: 2 * smallest, limit: 2 * smallest, size: 2 * smallest},
		{required: 2*smallest + 1, limit: 2*smallest + 2, code: codes.OutOfRange},
		{required: smallest, limit: smallest, code: codes.InvalidArgument},
		{required: largest + 1, code: codes.OutOfRange},
	} {
		v, err := l.expandVolume("orders", control.ExpandVolume{Required: step.required, Limit: step.limit})
		if step.code != codes.OK {
			expectCode(t, err, step.code)
		} else if err != nil || v.Size != step.size {
			t.Fatalf("%+v: the volume has %d bytes: %v", step, v.Size, err)
		}
	}
	data := bytes.Repeat([]byte{7}, 512)
	if err := client.write(2*smallest-512, data); err != nil {
		t.Errorf("the node that has the volume cannot write into what it grew by: %v", err)
	}
	_, err := l.expandVolume("nothing", control.ExpandVolume{Required: smallest})
	expectCode(t, err, codes.NotFound)
	l.stop()
	l = startLab(t, filepath.Dir(l.log))
	if v, err := l.volume("orders"); err != nil || v.Size != 2*smallest {
		t.Errorf("after a restart the volume has %d bytes: %v", v.Size, err)
	}
	if got, err := l.attach(t, "n1").read(2*smallest-512, 512); err != nil || !bytes.Equal(got, data) {
		t.Errorf("after a restart the last block reads %v: %v", got, err)
	}
	grown := slices.Collect(func(yield func(int64) bool) {
		for _, entry := range l.entries(t) {
			if entry.Event == journal.VolumeExpanded && !yield(entry.Size) {
				return
			}
		}
	})
	if !slices.Equal(grown, []int64{smallest + sizeStep, 2 * smallest}) {
		t.Errorf("the log says that the volume grew to %v", grown)
	}
}

func TestUnknownModesAreNamedInTheRefusal(t *testing.T) {
	l := newLab(t)
	for _, text := range []string{"", "off", "slow", "slow:x", "slow:-1", "revoke:3"} {
		expectCode(t, l.setMode(control.AllVolumes, text), codes.InvalidArgument)
	}
	expectCode(t, l.setMode("nothing", "lie"), codes.NotFound)
}

func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}
