package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"google.golang.org/grpc/codes"

	"sqledge.io/test-storage/control"
)

// saved is the file in which a host remembers its table. A revocation must survive a restart, or it would be a promise that the next
// run breaks.
type saved struct {
	Mode    string        `json:"mode"`
	Nodes   []string      `json:"nodes"`
	Volumes []savedVolume `json:"volumes"`
}

type savedVolume struct {
	ID      string        `json:"id"`
	Driver  string        `json:"driver"`
	Size    int64         `json:"size"`
	Mode    string        `json:"mode,omitempty"`
	Exports []savedExport `json:"exports"`
}

type savedExport struct {
	Node        string `json:"node"`
	Name        string `json:"name"`
	Unpublished bool   `json:"unpublished,omitempty"`
}

func (h *Host) statePath() string { return filepath.Join(h.folder, "state.json") }

func (h *Host) load() error {
	text, err := os.ReadFile(h.statePath())
	if errors.Is(err, fs.ErrNotExist) {
		return os.MkdirAll(h.folder, 0o700)
	}
	var state saved
	if err == nil {
		err = json.Unmarshal(text, &state)
	}
	if err == nil {
		h.mode, err = parseMode(state.Mode)
	}
	if err != nil {
		return fmt.Errorf("the storage host's table %s is unreadable: %w", h.statePath(), err)
	}
	for _, node := range state.Nodes {
		h.nodes[node] = true
	}
	for _, s := range state.Volumes {
		v := &volume{id: s.ID, driver: s.Driver, exports: map[string]*export{}}
		v.size.Store(s.Size)
		if s.Mode != "" {
			if v.mode, err = parseMode(s.Mode); err != nil {
				return err
			}
		}
		if v.file, err = openVolume(h.volumePath(s.ID), s.Size); err != nil {
			return err
		}
		for _, x := range s.Exports {
			e := &export{volume: v, node: x.Node, name: x.Name, unpublished: x.Unpublished, journal: h.journal}
			v.exports[e.node], h.names[e.name] = e, e
		}
		h.volumes[v.id] = v
	}
	return nil
}

// save is called with the lock held, after each change and before it is reported.
func (h *Host) save() error {
	state := saved{Mode: h.mode.String()}
	for node := range h.nodes {
		state.Nodes = append(state.Nodes, node)
	}
	slices.Sort(state.Nodes)
	for _, v := range h.volumes {
		s := savedVolume{ID: v.id, Driver: v.driver, Size: v.size.Load(), Mode: v.mode.String()}
		for _, e := range v.exports {
			s.Exports = append(s.Exports, savedExport{Node: e.node, Name: e.name, Unpublished: e.unpublished})
		}
		state.Volumes = append(state.Volumes, s)
	}
	if err := replaceFile(h.statePath(), state); err != nil {
		return control.Refuse(codes.Internal, "cannot save the storage host's table: %v", err)
	}
	return nil
}

func replaceFile(path string, content any) error {
	text, err := json.MarshalIndent(content, "", "  ")
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
