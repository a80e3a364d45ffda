// Package audit judges a storage log: did any node write to a volume that it had no right to?
//
// It reads the log alone and trusts neither the host's table nor what the host refused by itself: a node may write from the moment
// of `publish` until it was told to be off (`unpublish`, reported ok) or was revoked, and never after another node was given the volume.
package audit

import (
	"io"

	"sqledge.io/test-storage/journal"
)

// Findings of one log. Only LateWrites and SecondWriters are violations.
type Findings struct {
	Entries uint64 `json:"entries"`
	// Accepted and Refused count writes.
	Accepted uint64 `json:"accepted_writes"`
	Refused  uint64 `json:"refused_writes"`
	// LateWrites were accepted from a node after its access was reported gone.
	LateWrites uint64 `json:"late_writes"`
	// SecondWriters were accepted from a node after another one was given the volume.
	SecondWriters uint64 `json:"second_writer_writes"`
	// First is the first violation.
	First *journal.Entry `json:"first_violation"`
}

// Clean is true if nobody wrote who must not.
func (f Findings) Clean() bool { return f.LateWrites == 0 && f.SecondWriters == 0 }

// access is what the log has said about one volume so far.
type access struct {
	allowed map[string]bool
	// holder is the node that was given the volume last
	holder string
}

// Judge reads a log; volume limits it to one, "" means all.
func Judge(log io.Reader, volume string) (Findings, error) {
	var found Findings
	volumes := map[string]*access{}
	err := journal.Read(log, func(entry journal.Entry) error {
		found.Entries++
		if entry.Volume == "" || (volume != "" && entry.Volume != volume) {
			return nil
		}
		a := volumes[entry.Volume]
		if a == nil || entry.Event == journal.VolumeCreated {
			a = &access{allowed: map[string]bool{}}
			volumes[entry.Volume] = a
		}
		switch entry.Event {
		case journal.Published:
			a.allowed[entry.Node] = true
			a.holder = entry.Node
		case journal.Revoked:
			a.allowed[entry.Node] = false
		case journal.Unpublished:
			if entry.Reported == journal.ReportedSuccess {
				a.allowed[entry.Node] = false
			}
		case journal.Written:
			found.judgeWrite(a, entry)
		}
		return nil
	})
	return found, err
}

func (f *Findings) judgeWrite(a *access, entry journal.Entry) {
	if entry.Write == nil || !entry.Accepted {
		f.Refused++
		return
	}
	f.Accepted++
	late, second := !a.allowed[entry.Node], a.holder != entry.Node
	if late {
		f.LateWrites++
	}
	if second {
		f.SecondWriters++
	}
	if (late || second) && f.First == nil {
		f.First = &entry
	}
}
