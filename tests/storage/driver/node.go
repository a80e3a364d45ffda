package driver

import (
	"context"
	"errors"
	"log"
	"path/filepath"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sqledge.io/test-storage/attach"
	"sqledge.io/test-storage/control"
)

// NodeSettings are the node plugin's settings.
type NodeSettings struct {
	Driver, Node, Endpoint, Host string
	// Registration is the folder in which the kubelet looks for plugins; empty: don't register.
	Registration string
	// State is a folder that does not survive a reboot of the node.
	State string
}

type node struct {
	csi.UnimplementedNodeServer
	name    string
	host    *control.Client
	volumes *attach.Volumes

	mu   sync.Mutex
	busy map[string]bool
}

// ServeNode runs the Identity and Node services, makes the node known to the storage host and the plugin to the kubelet.
func ServeNode(ctx context.Context, settings NodeSettings) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n := &node{
		name:    settings.Node,
		host:    control.NewClient(settings.Host),
		volumes: attach.New(filepath.Join(settings.State, settings.Driver)),
		busy:    map[string]bool{},
	}
	go announce(ctx, n.host, settings.Node)
	failed := make(chan error, 2)
	go func() {
		failed <- serve(ctx, settings.Endpoint, func(server *grpc.Server) {
			csi.RegisterIdentityServer(server, &identity{driver: settings.Driver, ready: func(context.Context) bool { return true }})
			csi.RegisterNodeServer(server, n)
		})
	}()
	if settings.Registration != "" {
		go func() { failed <- serveRegistration(ctx, settings) }()
	}
	return <-failed
}

// announce tells the storage host of this node, until it has heard.
func announce(ctx context.Context, host *control.Client, name string) {
	for said := false; ; {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := host.RegisterNode(attempt, name)
		cancel()
		if err == nil || ctx.Err() != nil {
			return
		}
		if !said {
			log.Printf("node %s is not registered with the storage host yet: %v", name, err)
			said = true
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

func (n *node) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: n.name}, nil
}

func (n *node) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	response := &csi.NodeGetCapabilitiesResponse{}
	for _, offered := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
	} {
		response.Capabilities = append(response.Capabilities, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: offered}},
		})
	}
	return response, nil
}

func (n *node) NodeStageVolume(ctx context.Context, request *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	if err := required("volume_id", request.GetVolumeId(), "staging_target_path", request.GetStagingTargetPath()); err != nil {
		return nil, err
	}
	if err := checkCapability(request.GetVolumeCapability()); err != nil {
		return nil, err
	}
	from := attach.Source{Address: request.GetPublishContext()[contextAddress], Export: request.GetPublishContext()[contextExport]}
	if err := required("publish_context.address", from.Address, "publish_context.export", from.Export); err != nil {
		return nil, err
	}
	// not in the publish context, which stays what it was when the volume was attached
	volume, err := n.host.Volume(ctx, request.GetVolumeId())
	if err != nil {
		return nil, asStatus(err)
	}
	from.FileSystem, from.Size = fileSystem(request.GetVolumeCapability().GetMount()), volume.Size
	options := request.GetVolumeCapability().GetMount().GetMountFlags()
	return &csi.NodeStageVolumeResponse{}, n.alone(request.GetVolumeId(), func() error {
		return n.volumes.Stage(ctx, request.GetVolumeId(), from, filepath.Clean(request.GetStagingTargetPath()), options)
	})
}

func (n *node) NodeUnstageVolume(_ context.Context, request *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	if err := required("volume_id", request.GetVolumeId(), "staging_target_path", request.GetStagingTargetPath()); err != nil {
		return nil, err
	}
	return &csi.NodeUnstageVolumeResponse{}, n.alone(request.GetVolumeId(), func() error {
		return n.volumes.Unstage(request.GetVolumeId(), filepath.Clean(request.GetStagingTargetPath()))
	})
}

func (n *node) NodePublishVolume(_ context.Context, request *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if err := required("volume_id", request.GetVolumeId(), "target_path", request.GetTargetPath(),
		"staging_target_path", request.GetStagingTargetPath()); err != nil {
		return nil, err
	}
	if err := checkCapability(request.GetVolumeCapability()); err != nil {
		return nil, err
	}
	mode := request.GetVolumeCapability().GetAccessMode().GetMode()
	only := mode == csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	readOnly := request.GetReadonly() || mode == csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY
	return &csi.NodePublishVolumeResponse{}, n.alone(request.GetVolumeId(), func() error {
		return n.volumes.Publish(
			filepath.Clean(request.GetStagingTargetPath()), filepath.Clean(request.GetTargetPath()), readOnly, only)
	})
}

func (n *node) NodeUnpublishVolume(_ context.Context, request *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := required("volume_id", request.GetVolumeId(), "target_path", request.GetTargetPath()); err != nil {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, n.alone(request.GetVolumeId(), func() error {
		return n.volumes.Unpublish(request.GetVolumeId(), filepath.Clean(request.GetTargetPath()))
	})
}

// NodeExpandVolume grows the file system to the size that the storage host has made the volume.
func (n *node) NodeExpandVolume(ctx context.Context, request *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	if err := required("volume_id", request.GetVolumeId(), "volume_path", request.GetVolumePath()); err != nil {
		return nil, err
	}
	volume, err := n.host.Volume(ctx, request.GetVolumeId())
	if err != nil {
		return nil, asStatus(err)
	}
	if wanted := request.GetCapacityRange().GetRequiredBytes(); wanted > volume.Size {
		return nil, status.Errorf(codes.OutOfRange,
			"volume %s has %d bytes and not %d: the controller must expand it first", volume.ID, volume.Size, wanted)
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: volume.Size}, n.alone(request.GetVolumeId(), func() error {
		return n.volumes.Expand(ctx, filepath.Clean(request.GetVolumePath()), volume.Size)
	})
}

// alone lets one call at a time work on a volume; the kubelet repeats calls that it gave up on while they still run.
func (n *node) alone(id string, do func() error) error {
	n.mu.Lock()
	taken := n.busy[id]
	n.busy[id] = true
	n.mu.Unlock()
	if taken {
		return status.Errorf(codes.Aborted, "another call for volume %s is under way", id)
	}
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.busy, id)
	}()
	err := do()
	if errors.Is(err, attach.ErrNotStaged) || errors.Is(err, attach.ErrNotMounted) ||
		errors.Is(err, attach.ErrGrowsNot) || errors.Is(err, attach.ErrPublishedElsewhere) {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	return asStatus(err)
}

func checkCapability(capability *csi.VolumeCapability) error {
	if capability == nil {
		return status.Error(codes.InvalidArgument, "field volume_capability is missing")
	}
	if why := unsupported(capability); why != "" {
		return status.Error(codes.InvalidArgument, why)
	}
	return nil
}
