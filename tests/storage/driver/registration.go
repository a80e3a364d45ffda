package driver

import (
	"context"
	"log"
	"path/filepath"
	"strings"

	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// registrar answers the kubelet's plugin watcher: who are you, and where do you serve.
type registrar struct {
	registration.UnimplementedRegistrationServer
	driver, socket string
}

func (r *registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: r.driver, Endpoint: r.socket, SupportedVersions: []string{"1.0.0"},
	}, nil
}

func (r *registrar) NotifyRegistrationStatus(
	_ context.Context, result *registration.RegistrationStatus,
) (*registration.RegistrationStatusResponse, error) {
	if result.GetPluginRegistered() {
		log.Printf("the kubelet has registered %s", r.driver)
	} else {
		// the kubelet tries again by itself
		log.Printf("the kubelet did not register %s: %s", r.driver, result.GetError())
	}
	return &registration.RegistrationStatusResponse{}, nil
}

func serveRegistration(ctx context.Context, settings NodeSettings) error {
	socket := strings.TrimPrefix(settings.Endpoint, "unix://")
	return serve(ctx, "unix://"+filepath.Join(settings.Registration, settings.Driver+"-reg.sock"), func(server *grpc.Server) {
		registration.RegisterRegistrationServer(server, &registrar{driver: settings.Driver, socket: socket})
	})
}
