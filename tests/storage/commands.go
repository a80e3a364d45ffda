package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strconv"

	"sqledge.io/test-storage/audit"
	"sqledge.io/test-storage/control"
	"sqledge.io/test-storage/driver"
	"sqledge.io/test-storage/host"
)

// errViolation: the check itself went well, what it found is bad; it is printed already.
var errViolation = errors.New("the log shows writes that must not be")

func runHost(ctx context.Context, arguments []string) error {
	var listen, nbdListen, data, log string
	_, err := parse("host", arguments, func(flags *flag.FlagSet) {
		flags.StringVar(&listen, "listen", "", "address of the control interface")
		flags.StringVar(&nbdListen, "nbd-listen", "", "address of the exports (default: the port after --listen)")
		flags.StringVar(&data, "data", "", "folder of the volumes")
		flags.StringVar(&log, "log", "", "file of the log")
	}, "listen", "data", "log")
	if err != nil {
		return err
	}
	api, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("cannot listen for control calls: %w", err)
	}
	if nbdListen == "" {
		at := api.Addr().(*net.TCPAddr)
		nbdListen = net.JoinHostPort(at.IP.String(), strconv.Itoa(at.Port+1))
	}
	nbd, err := net.Listen("tcp", nbdListen)
	if err != nil {
		return fmt.Errorf("cannot listen for nodes: %w", err)
	}
	storage, err := host.Open(data, log, api, nbd)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "storage host: control on %s, exports on %s\n", api.Addr(), nbd.Addr())
	return storage.Serve(ctx)
}

func runController(ctx context.Context, arguments []string) error {
	var name, endpoint, hostAddress string
	_, err := parse("controller", arguments, func(flags *flag.FlagSet) {
		flags.StringVar(&name, "driver", "", "CSI driver name")
		flags.StringVar(&endpoint, "endpoint", "", "unix:// socket to serve on")
		flags.StringVar(&hostAddress, "host", "", "address of the storage host")
	}, "driver", "endpoint", "host")
	if err != nil {
		return err
	}
	return driver.ServeController(ctx, name, endpoint, hostAddress)
}

func runNode(ctx context.Context, arguments []string) error {
	var settings driver.NodeSettings
	_, err := parse("node", arguments, func(flags *flag.FlagSet) {
		flags.StringVar(&settings.Driver, "driver", "", "CSI driver name")
		flags.StringVar(&settings.Node, "node", "", "name of this node")
		flags.StringVar(&settings.Endpoint, "endpoint", "", "unix:// socket to serve on")
		flags.StringVar(&settings.Host, "host", "", "address of the storage host")
		flags.StringVar(&settings.Registration, "registration", "", "the kubelet's plugins_registry folder")
		flags.StringVar(&settings.State, "state", "/run/test-storage", "folder that a reboot empties")
	}, "driver", "node", "endpoint", "host")
	if err != nil {
		return err
	}
	return driver.ServeNode(ctx, settings)
}

func runCtl(ctx context.Context, arguments []string) error {
	var address string
	words, err := parse("ctl", arguments, func(flags *flag.FlagSet) {
		flags.StringVar(&address, "host", "", "address of the storage host")
	}, "host")
	if err != nil {
		return err
	}
	client := control.NewClient(address)
	verb := ""
	if len(words) > 0 {
		verb = words[0]
	}
	switch {
	case verb == "state" && len(words) == 1:
		state, err := client.State(ctx)
		if err != nil {
			return err
		}
		return printJSON(state)
	case verb == "mode" && len(words) == 3:
		return client.SetMode(ctx, control.SetMode{Volume: words[1], Mode: words[2]})
	case verb == "publish" && len(words) == 3:
		export, err := client.Publish(ctx, words[1], words[2])
		if err != nil {
			return err
		}
		return printJSON(export)
	case verb == "unpublish" && len(words) == 3:
		return client.Unpublish(ctx, words[1], words[2])
	case verb == "revoke" && len(words) == 3:
		return client.Revoke(ctx, words[1], words[2])
	case verb == "log" && len(words) == 1:
		return client.Log(ctx, os.Stdout)
	default:
		return errUsage
	}
}

func runCheck(_ context.Context, arguments []string) error {
	var path, volume string
	_, err := parse("check", arguments, func(flags *flag.FlagSet) {
		flags.StringVar(&path, "log", "", "file of the log")
		flags.StringVar(&volume, "volume", "", "judge this volume only")
	}, "log")
	if err != nil {
		return err
	}
	log, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("cannot open the storage log: %w", err)
	}
	defer log.Close()
	findings, err := audit.Judge(log, volume)
	if err != nil {
		return err
	}
	if err := printJSON(findings); err != nil {
		return err
	}
	if !findings.Clean() {
		return errViolation
	}
	return nil
}

func printJSON(value any) error {
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}
