package host

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"google.golang.org/grpc/codes"

	"sqledge.io/test-storage/control"
	"sqledge.io/test-storage/journal"
)

const (
	defaultSize = 1 << 30
	smallest    = 16 << 20 // less than this has no room for a journal
	largest     = 1 << 40
	sizeStep    = 1 << 20
	// a client learns the size of a device once, when it connects: so that a volume can grow while a node has it, every device has room
	// for the largest one, of which a node may write no more than the volume's size
	deviceSize = largest
)

// safeName is what may stand in a file name, an NBD export name and a log without being changed.
var safeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// volumeID is the name itself where possible, so that logs read well.
func volumeID(name string) string {
	if safeName.MatchString(name) {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return "volume-" + hex.EncodeToString(sum[:16])
}

func (h *Host) createVolume(wanted control.CreateVolume) (control.Volume, error) {
	if wanted.Name == "" || wanted.Driver == "" {
		return control.Volume{}, control.Refuse(codes.InvalidArgument, "a volume needs a name and a driver")
	}
	size, err := chooseSize(wanted.Required, wanted.Limit)
	if err != nil {
		return control.Volume{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	id := volumeID(wanted.Name)
	if v := h.volumes[id]; v != nil {
		present := v.size.Load()
		if v.driver != wanted.Driver || present < wanted.Required || (wanted.Limit > 0 && present > wanted.Limit) {
			return control.Volume{}, control.Refuse(codes.AlreadyExists,
				"volume %s exists with %d bytes for driver %s, which is not what was asked for", id, present, v.driver)
		}
		return h.describeVolume(v), nil
	}
	file, err := openVolume(h.volumePath(id), size)
	if err != nil {
		return control.Volume{}, err
	}
	v := &volume{id: id, driver: wanted.Driver, file: file, exports: map[string]*export{}}
	v.size.Store(size)
	h.volumes[id] = v
	h.journal.Append(journal.Entry{Event: journal.VolumeCreated, Volume: id, Driver: v.driver, Size: size})
	return h.describeVolume(v), h.save()
}

func chooseSize(required, limit int64) (int64, error) {
	if required < 0 || limit < 0 || (limit > 0 && required > limit) {
		return 0, control.Refuse(codes.InvalidArgument, "a size of at least %d and at most %d bytes cannot be met", required, limit)
	}
	size := required
	if size == 0 {
		size = defaultSize
		if limit > 0 {
			size = min(size, limit/sizeStep*sizeStep)
		}
	}
	size = max(smallest, (size+sizeStep-1)/sizeStep*sizeStep)
	if size > largest || (limit > 0 && size > limit) {
		return 0, control.Refuse(codes.OutOfRange,
			"this storage host makes volumes of %d to %d bytes in steps of %d; at least %d and at most %d were asked for",
			int64(smallest), int64(largest), int64(sizeStep), required, limit)
	}
	return size, nil
}

// expandVolume makes a volume at least as large as wanted, also while a node has it; one that is that large already stays as it is.
func (h *Host) expandVolume(id string, wanted control.ExpandVolume) (control.Volume, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.volumes[id]
	if v == nil {
		return control.Volume{}, unknownVolume(id)
	}
	present := v.size.Load()
	size, err := chooseSize(max(present, wanted.Required), wanted.Limit)
	if err != nil {
		return control.Volume{}, err
	}
	if size == present {
		return h.describeVolume(v), nil
	}
	if err := v.file.Truncate(size); err != nil {
		return control.Volume{}, control.Refuse(codes.Internal, "cannot make the file of a volume larger: %v", err)
	}
	v.size.Store(size)
	h.journal.Append(journal.Entry{Event: journal.VolumeExpanded, Volume: id, Driver: v.driver, Size: size})
	return h.describeVolume(v), h.save()
}

// deleteVolume refuses while a node has access; the exports that mode `lie` declared gone end with the volume.
func (h *Host) deleteVolume(id string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.volumes[id]
	if v == nil {
		return nil
	}
	for _, e := range v.exports {
		if !e.unpublished {
			return control.Refuse(codes.FailedPrecondition, "volume %s is exported to node %s: unpublish it first", id, e.node)
		}
	}
	for _, e := range v.exports {
		e.revoke()
		delete(h.names, e.name)
	}
	delete(h.volumes, id)
	h.journal.Append(journal.Entry{Event: journal.VolumeDeleted, Volume: id, Driver: v.driver})
	if err := h.save(); err != nil {
		return err
	}
	// revoked connections answer without touching the file
	return errors.Join(v.file.Close(), os.Remove(h.volumePath(id)))
}

func (h *Host) volume(id string) (control.Volume, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.volumes[id]
	if v == nil {
		return control.Volume{}, unknownVolume(id)
	}
	return h.describeVolume(v), nil
}

func (h *Host) state() control.State {
	h.mu.Lock()
	defer h.mu.Unlock()
	state := control.State{Mode: h.mode.String(), Nodes: slices.Sorted(maps.Keys(h.nodes)), Volumes: []control.Volume{}}
	for _, id := range slices.Sorted(maps.Keys(h.volumes)) {
		state.Volumes = append(state.Volumes, h.describeVolume(h.volumes[id]))
	}
	return state
}

func (h *Host) describeVolume(v *volume) control.Volume {
	described := control.Volume{
		ID: v.id, Driver: v.driver, Size: v.size.Load(), Mode: h.modeOf(v).String(), Exports: []control.Export{},
	}
	for _, e := range v.exports {
		described.Exports = append(described.Exports, h.describe(e))
	}
	slices.SortFunc(described.Exports, func(a, b control.Export) int { return cmp.Compare(a.Node, b.Node) })
	return described
}

func (h *Host) volumePath(id string) string { return filepath.Join(h.folder, "volumes", id) }

// openVolume makes the file, sparse, unless it is there. New volumes are all zeroes, which makes mkfs quick.
func openVolume(path string, size int64) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, control.Refuse(codes.Internal, "cannot make the folder of the volumes: %v", err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	}
	if err == nil {
		err = file.Truncate(size)
	}
	if err != nil {
		return nil, control.Refuse(codes.Internal, "cannot open the file of a volume: %v", err)
	}
	return file, nil
}
