package host

import (
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"sqledge.io/test-storage/control"
)

// Kinds of mode: what unpublish does.
const (
	modeRevoke = "revoke" // ends the export, then says so
	modeLie    = "lie"    // says so and ends nothing
	modeRefuse = "refuse" // says no while the node is connected
	modeSlow   = "slow"   // ends the export after a while
	modeFail   = "fail"   // always says that something went wrong
)

// mode is a kind with its parameter; the zero value means "not set".
type mode struct {
	kind  string
	delay time.Duration
}

func (m mode) String() string {
	if m.kind == modeSlow {
		return modeSlow + ":" + strconv.FormatFloat(m.delay.Seconds(), 'f', -1, 64)
	}
	return m.kind
}

func parseMode(text string) (mode, error) {
	kind, seconds, hasSeconds := strings.Cut(text, ":")
	switch {
	case kind == modeSlow && hasSeconds:
		value, err := strconv.ParseFloat(seconds, 64)
		if err == nil && value >= 0 && value <= 86400 {
			return mode{kind: kind, delay: time.Duration(value * float64(time.Second))}, nil
		}
	case hasSeconds:
	case kind == modeRevoke || kind == modeLie || kind == modeRefuse || kind == modeFail:
		return mode{kind: kind}, nil
	}
	return mode{}, control.Refuse(codes.InvalidArgument,
		"mode %q is none of revoke, lie, refuse, fail, slow:SECONDS", text)
}
