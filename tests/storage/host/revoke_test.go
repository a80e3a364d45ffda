package host

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"sqledge.io/test-storage/journal"
)

// Many writers on many connections, each write with a stamp of its own; the node is revoked in the middle. Whatever happens, after
// revoke has returned the file must not change any more, and what was accepted must be in it.
func TestAfterRevokeReturnsNoWriteOfThatNodeIsAccepted(t *testing.T) {
	const writers, rounds, block = 16, 20, 4096
	for range rounds {
		l := newLab(t)
		export, err := l.publish("orders", "n1")
		if err != nil {
			t.Fatal(err)
		}
		var revoked atomic.Bool
		var accepted [writers]atomic.Uint32
		var late, refused atomic.Int64
		var finished sync.WaitGroup
		for w := range writers {
			client, err := connectNBD(t, l.nbd, export.Name)
			if err != nil {
				t.Fatal(err)
			}
			finished.Go(func() {
				for stamp := uint32(1); refused.Load() < writers*3; stamp++ {
					sentAfter := revoked.Load()
					err := client.write(uint64(w*block), bytes.Repeat([]byte{byte(stamp), byte(stamp >> 8)}, block/2))
					switch {
					case err == nil && sentAfter:
						late.Add(1)
					case err == nil:
						accepted[w].Store(stamp)
					case errors.Is(err, errno(wireEIO)):
						refused.Add(1)
					default:
						t.Errorf("a write ended with %v", err)
						return
					}
				}
			})
		}
		waitFor(t, "all writers write", func() bool {
			for w := range writers {
				if accepted[w].Load() < 3 {
					return false
				}
			}
			return true
		})
		if err := l.unpublish(t.Context(), "orders", "n1"); err != nil {
			t.Fatal(err)
		}
		frozen := contents(t, l)
		revoked.Store(true)
		finished.Wait()
		if late.Load() != 0 {
			t.Fatalf("%d writes sent after the revocation were accepted", late.Load())
		}
		if !bytes.Equal(frozen, contents(t, l)) {
			t.Fatal("the volume changed after the revocation")
		}
		for w := range writers {
			stamp := accepted[w].Load()
			if want := bytes.Repeat([]byte{byte(stamp), byte(stamp >> 8)}, block/2); !bytes.Equal(frozen[w*block:(w+1)*block], want) {
				t.Fatalf("writer %d was told that stamp %d is written, and it is not there", w, stamp)
			}
		}
		checkLogOfRevocation(t, l, refused.Load())
		l.stop()
	}
}

func contents(t *testing.T, l *lab) []byte {
	t.Helper()
	data, err := os.ReadFile(l.volumePath("orders"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// checkLogOfRevocation wants every accepted write before the line `revoke`, and every refused one in the log too.
func checkLogOfRevocation(t *testing.T, l *lab, refused int64) {
	t.Helper()
	over, seen := false, int64(0)
	for _, entry := range l.entries(t) {
		switch {
		case entry.Event == journal.Revoked:
			over = true
		case entry.Event == journal.Written && entry.Accepted == over:
			t.Fatalf("accepted %v, although revoked is %v: entry %d", entry.Accepted, over, entry.Seq)
		case entry.Event == journal.Written && !entry.Accepted:
			seen++
		}
	}
	if found := l.judge(t); !over || seen != refused || !found.Clean() {
		t.Fatalf("the log says revoked: %v, %d refused of %d: %+v", over, seen, refused, found)
	}
}
