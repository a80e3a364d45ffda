// Package driver is the CSI driver of the test storage: a controller service that asks the storage host, and a node service that
// attaches what the host exports.
//
// It holds no state and decides nothing about who may write: the storage host does. The driver's name is a setting, so that one host
// can serve several drivers which Kubernetes takes for different products.
package driver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sqledge.io/test-storage/attach"
	"sqledge.io/test-storage/control"
)

// Version is what GetPluginInfo says.
const Version = "1"

// publish context keys: how a node learns where its export is
const (
	contextAddress = "address"
	contextExport  = "export"
)

// identity answers the Identity service on both endpoints.
type identity struct {
	csi.UnimplementedIdentityServer
	driver string
	ready  func(context.Context) bool
}

func (i *identity) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: i.driver, VendorVersion: Version}, nil
}

func (i *identity) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{
		{Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{
			Type: csi.PluginCapability_Service_CONTROLLER_SERVICE,
		}}},
		{Type: &csi.PluginCapability_VolumeExpansion_{VolumeExpansion: &csi.PluginCapability_VolumeExpansion{
			Type: csi.PluginCapability_VolumeExpansion_ONLINE,
		}}},
	}}, nil
}

func (i *identity) Probe(ctx context.Context, _ *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(i.ready(ctx))}, nil
}

// serve answers CSI calls on a unix:// endpoint until the context ends.
func serve(ctx context.Context, endpoint string, register func(*grpc.Server)) error {
	socket, isUnix := strings.CutPrefix(endpoint, "unix://")
	if !isUnix {
		return fmt.Errorf("endpoint %q is not of the form unix:///path/to.sock", endpoint)
	}
	listener, err := listenUnix(socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(logCall))
	register(server)
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	log.Printf("serving on %s", socket)
	return server.Serve(listener)
}

// listenUnix replaces the socket that an earlier life of this program left.
func listenUnix(socket string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(socket), 0o750); err != nil {
		return nil, fmt.Errorf("cannot make the folder of a socket: %w", err)
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot remove an old socket: %w", err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on a socket: %w", err)
	}
	return listener, nil
}

func logCall(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	method := path.Base(info.FullMethod)
	response, err := next(ctx, request)
	switch {
	case err != nil:
		log.Printf("%s {%v}: %v", method, request, err)
	case method != "Probe" && !strings.HasPrefix(method, "Get") && !strings.HasSuffix(method, "Capabilities"):
		log.Printf("%s {%v}: done", method, request)
	}
	return response, err
}

// asStatus gives an error the CSI code that it stands for.
func asStatus(err error) error {
	if err == nil {
		return nil
	}
	var refusal *control.Error
	if errors.As(err, &refusal) {
		return status.Error(refusal.Code, refusal.Message)
	}
	return status.Error(codes.Internal, err.Error())
}

// required names the first field of name/value pairs that is empty.
func required(pairs ...string) error {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			return status.Errorf(codes.InvalidArgument, "field %s is missing", pairs[i])
		}
	}
	return nil
}

// fileSystem is the one that is asked for, or the one of the two that can be expanded.
func fileSystem(mount *csi.VolumeCapability_MountVolume) string {
	return cmp.Or(mount.GetFsType(), attach.XFS)
}

// unsupported says why a capability cannot be had, or "".
func unsupported(capability *csi.VolumeCapability) string {
	mount := capability.GetMount()
	if mount == nil {
		return "only mounted volumes are offered, no block devices"
	}
	if kind := fileSystem(mount); kind != attach.Ext4 && kind != attach.XFS {
		return "the file systems offered are xfs and ext4"
	}
	switch capability.GetAccessMode().GetMode() {
	case csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
		csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY,
		csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
		csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER:
		return ""
	default:
		return "a volume is offered to one node at a time only"
	}
}
