package audit

import (
	"strings"
	"testing"
)

const (
	given   = `{"event":"publish","volume":"orders","node":"n1"}`
	written = `{"event":"write","volume":"orders","node":"n1","offset":0,"length":512,"accepted":true}`
	refused = `{"event":"write","volume":"orders","node":"n1","offset":0,"length":512,"accepted":false}`
	revoked = `{"event":"revoke","volume":"orders","node":"n1"}`
	told    = `{"event":"unpublish","volume":"orders","node":"n1","reported":"ok"}`
	failed  = `{"event":"unpublish","volume":"orders","node":"n1","reported":"error"}`
	other   = `{"event":"publish","volume":"orders","node":"n2"}`
	second  = `{"event":"write","volume":"orders","node":"n2","offset":0,"length":512,"accepted":true}`
	foreign = `{"event":"write","volume":"bills","node":"n1","offset":0,"length":512,"accepted":true}`
)

func TestWritesOutOfTurnAreFound(t *testing.T) {
	for name, c := range map[string]struct {
		log          []string
		late, second uint64
	}{
		"in turn":                            {[]string{given, written, told, other, second}, 0, 0},
		"refused after the revocation":       {[]string{given, written, revoked, refused, told}, 0, 0},
		"a failed unpublish takes no right":  {[]string{given, failed, written}, 0, 0},
		"given again":                        {[]string{given, told, given, written}, 0, 0},
		"accepted after the revocation":      {[]string{given, revoked, written}, 1, 0},
		"accepted after unpublish was ok":    {[]string{given, told, written, written}, 2, 0},
		"accepted after another got it":      {[]string{given, told, other, second, written}, 1, 1},
		"both at once, nobody was unpublish": {[]string{given, other, second, written}, 0, 1},
		"never given":                        {[]string{given, foreign}, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := Judge(strings.NewReader(strings.Join(c.log, "\n")+"\n"), "")
			if err != nil {
				t.Fatal(err)
			}
			if found.LateWrites != c.late || found.SecondWriters != c.second || found.Clean() != (c.late+c.second == 0) {
				t.Errorf("found %+v", found)
			}
			if (found.First == nil) != found.Clean() {
				t.Error("the first violation is named if and only if there is one")
			}
		})
	}
}

func TestOneVolumeCanBeJudgedAlone(t *testing.T) {
	found, err := Judge(strings.NewReader(given+"\n"+foreign+"\n"+written+"\n"), "orders")
	if err != nil || !found.Clean() || found.Accepted != 1 {
		t.Errorf("found %+v, %v", found, err)
	}
}

func TestALineThatIsNoEntryIsAnError(t *testing.T) {
	if _, err := Judge(strings.NewReader(given+"\nnonsense\n"), ""); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("got %v", err)
	}
}
