package driver

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sqledge.io/test-storage/control"
)

type controller struct {
	csi.UnimplementedControllerServer
	driver string
	host   *control.Client
}

// ServeController runs the Identity and Controller services.
func ServeController(ctx context.Context, driver, endpoint, host string) error {
	c := &controller{driver: driver, host: control.NewClient(host)}
	ready := func(ctx context.Context) bool {
		_, err := c.host.State(ctx)
		return err == nil
	}
	return serve(ctx, endpoint, func(server *grpc.Server) {
		csi.RegisterIdentityServer(server, &identity{driver: driver, ready: ready})
		csi.RegisterControllerServer(server, c)
	})
}

func (c *controller) ControllerGetCapabilities(
	context.Context, *csi.ControllerGetCapabilitiesRequest,
) (*csi.ControllerGetCapabilitiesResponse, error) {
	response := &csi.ControllerGetCapabilitiesResponse{}
	for _, offered := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
	} {
		response.Capabilities = append(response.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: offered}},
		})
	}
	return response, nil
}

func (c *controller) CreateVolume(ctx context.Context, request *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if err := required("name", request.GetName()); err != nil {
		return nil, err
	}
	if len(request.GetVolumeCapabilities()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "field volume_capabilities is missing")
	}
	for _, capability := range request.GetVolumeCapabilities() {
		if why := unsupported(capability); why != "" {
			return nil, status.Error(codes.InvalidArgument, why)
		}
	}
	if request.GetVolumeContentSource() != nil {
		return nil, status.Error(codes.InvalidArgument, "volumes cannot be made from snapshots or other volumes")
	}
	volume, err := c.host.CreateVolume(ctx, control.CreateVolume{
		Name: request.GetName(), Driver: c.driver,
		Required: request.GetCapacityRange().GetRequiredBytes(), Limit: request.GetCapacityRange().GetLimitBytes(),
	})
	if err != nil {
		return nil, asStatus(err)
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: volume.ID, CapacityBytes: volume.Size}}, nil
}

func (c *controller) DeleteVolume(ctx context.Context, request *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if err := required("volume_id", request.GetVolumeId()); err != nil {
		return nil, err
	}
	return &csi.DeleteVolumeResponse{}, asStatus(c.host.DeleteVolume(ctx, request.GetVolumeId()))
}

func (c *controller) ControllerPublishVolume(
	ctx context.Context, request *csi.ControllerPublishVolumeRequest,
) (*csi.ControllerPublishVolumeResponse, error) {
	if err := required("volume_id", request.GetVolumeId(), "node_id", request.GetNodeId()); err != nil {
		return nil, err
	}
	if request.GetVolumeCapability() == nil {
		return nil, status.Error(codes.InvalidArgument, "field volume_capability is missing")
	}
	if why := unsupported(request.GetVolumeCapability()); why != "" {
		return nil, status.Error(codes.InvalidArgument, why)
	}
	if _, err := c.own(ctx, request.GetVolumeId()); err != nil {
		return nil, err
	}
	export, err := c.host.Publish(ctx, request.GetVolumeId(), request.GetNodeId())
	if err != nil {
		return nil, asStatus(err)
	}
	return &csi.ControllerPublishVolumeResponse{
		PublishContext: map[string]string{contextAddress: export.Address, contextExport: export.Name},
	}, nil
}

func (c *controller) ControllerUnpublishVolume(
	ctx context.Context, request *csi.ControllerUnpublishVolumeRequest,
) (*csi.ControllerUnpublishVolumeResponse, error) {
	if err := required("volume_id", request.GetVolumeId()); err != nil {
		return nil, err
	}
	nodes := []string{request.GetNodeId()}
	if request.GetNodeId() == "" { // from all nodes, says CSI
		volume, err := c.host.Volume(ctx, request.GetVolumeId())
		if err != nil && status.Code(asStatus(err)) != codes.NotFound {
			return nil, asStatus(err)
		}
		nodes = nil
		for _, export := range volume.Exports {
			nodes = append(nodes, export.Node)
		}
	}
	for _, node := range nodes {
		if err := c.host.Unpublish(ctx, request.GetVolumeId(), node); err != nil {
			return nil, asStatus(err)
		}
	}
	return &csi.ControllerUnpublishVolumeResponse{}, nil
}

func (c *controller) ControllerExpandVolume(
	ctx context.Context, request *csi.ControllerExpandVolumeRequest,
) (*csi.ControllerExpandVolumeResponse, error) {
	if err := required("volume_id", request.GetVolumeId()); err != nil {
		return nil, err
	}
	if request.GetCapacityRange() == nil {
		return nil, status.Error(codes.InvalidArgument, "field capacity_range is missing")
	}
	if _, err := c.own(ctx, request.GetVolumeId()); err != nil {
		return nil, err
	}
	volume, err := c.host.ExpandVolume(ctx, request.GetVolumeId(), control.ExpandVolume{
		Required: request.GetCapacityRange().GetRequiredBytes(), Limit: request.GetCapacityRange().GetLimitBytes(),
	})
	if err != nil {
		return nil, asStatus(err)
	}
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: volume.Size, NodeExpansionRequired: true}, nil
}

func (c *controller) ValidateVolumeCapabilities(
	ctx context.Context, request *csi.ValidateVolumeCapabilitiesRequest,
) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if err := required("volume_id", request.GetVolumeId()); err != nil {
		return nil, err
	}
	if len(request.GetVolumeCapabilities()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "field volume_capabilities is missing")
	}
	if _, err := c.own(ctx, request.GetVolumeId()); err != nil {
		return nil, err
	}
	for _, capability := range request.GetVolumeCapabilities() {
		if why := unsupported(capability); why != "" {
			return &csi.ValidateVolumeCapabilitiesResponse{Message: why}, nil
		}
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext: request.GetVolumeContext(), VolumeCapabilities: request.GetVolumeCapabilities(),
		Parameters: request.GetParameters(),
	}}, nil
}

// own finds a volume of this driver; another driver's volumes do not exist for it.
func (c *controller) own(ctx context.Context, id string) (control.Volume, error) {
	volume, err := c.host.Volume(ctx, id)
	if err != nil {
		return volume, asStatus(err)
	}
	if volume.Driver != c.driver {
		return volume, status.Errorf(codes.NotFound, "volume %s belongs to driver %s", id, volume.Driver)
	}
	return volume, nil
}
