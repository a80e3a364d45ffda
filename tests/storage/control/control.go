// Package control is the storage host's HTTP/JSON control interface as both sides see it: the bodies, the errors, and a client.
//
// The CSI controller, the node plugin and the `ctl` command use the client; the host package serves it.
package control

import (
	"fmt"

	"google.golang.org/grpc/codes"
)

// Volume is one volume and whoever may reach it.
type Volume struct {
	ID      string   `json:"id"`
	Driver  string   `json:"driver"`
	Size    int64    `json:"size"`
	Mode    string   `json:"mode"`
	Exports []Export `json:"exports"`
}

// Export is one node's access to one volume.
type Export struct {
	Node string `json:"node"`
	// Address and Name together are where the node connects to. A name is never used twice, so a node that lost its
	// export cannot come back with what it remembers.
	Address string `json:"address"`
	Name    string `json:"name"`
	// Connections counts the node's open connections.
	Connections int `json:"connections"`
	// Unpublished is true when the host (mode `lie`) has said that this export is gone.
	Unpublished bool `json:"unpublished"`
}

// State is all there is to know about a host.
type State struct {
	Mode    string   `json:"mode"`
	Nodes   []string `json:"nodes"`
	Volumes []Volume `json:"volumes"`
}

// CreateVolume asks for a volume; Limit 0 means no limit.
type CreateVolume struct {
	Name     string `json:"name"`
	Driver   string `json:"driver"`
	Required int64  `json:"required"`
	Limit    int64  `json:"limit"`
}

// ExpandVolume asks for a larger volume; Limit 0 means no limit.
type ExpandVolume struct {
	Required int64 `json:"required"`
	Limit    int64 `json:"limit"`
}

// SetMode changes how unpublish behaves, for one volume or for AllVolumes.
type SetMode struct {
	Volume string `json:"volume"`
	Mode   string `json:"mode"`
}

// AllVolumes in SetMode sets the host's mode and forgets the modes of single volumes.
const AllVolumes = "all"

// Error is a refusal: the same code and sentence reach the CSI caller.
type Error struct {
	Code    codes.Code `json:"-"`
	Message string     `json:"error"`
	// CodeName is Code in words, for people who read the HTTP answer.
	CodeName string `json:"code"`
	Number   uint32 `json:"number"`
}

func (e *Error) Error() string { return e.Message }

// Refuse makes an Error.
func Refuse(code codes.Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), CodeName: code.String(), Number: uint32(code)}
}
