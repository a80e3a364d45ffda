// Command test-storage is the storage of the test cluster: a storage host whose exports can really be revoked, and the CSI driver
// that brings its volumes to pods. For tests only; README.md describes it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"sqledge.io/test-storage/attach"
)

// errUsage has been explained already by the flag package.
var errUsage = errors.New("usage")

var commands = map[string]func(ctx context.Context, arguments []string) error{
	"host":       runHost,
	"controller": runController,
	"node":       runNode,
	"ctl":        runCtl,
	"check":      runCheck,
	// not for people: the node plugin starts itself with it
	attach.ApartCommand: func(_ context.Context, arguments []string) error { return attach.ServeApart(arguments) },
}

const usage = `test-storage host       --listen HOST:PORT --data DIR --log FILE [--nbd-listen HOST:PORT]
test-storage controller --driver NAME --endpoint unix:///SOCKET --host HOST:PORT
test-storage node       --driver NAME --node NODE --endpoint unix:///SOCKET --host HOST:PORT [--registration DIR] [--state DIR]
test-storage ctl        --host HOST:PORT state | mode VOLUME|all MODE | publish VOLUME NODE | unpublish VOLUME NODE | revoke VOLUME NODE | log
test-storage check      --log FILE [--volume VOLUME]
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	err := commands[os.Args[1]](ctx, os.Args[2:])
	switch {
	case err == nil || ctx.Err() != nil:
	case errors.Is(err, errUsage):
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	case errors.Is(err, errViolation):
		os.Exit(3)
	default:
		fmt.Fprintf(os.Stderr, "test-storage %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

// parse reads flags; every flag with an empty default that is named in needed must be given.
func parse(name string, arguments []string, define func(*flag.FlagSet), needed ...string) ([]string, error) {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.Usage = func() {}
	define(flags)
	if err := flags.Parse(arguments); err != nil {
		return nil, errUsage
	}
	for _, each := range needed {
		if flags.Lookup(each).Value.String() == "" {
			fmt.Fprintf(os.Stderr, "test-storage %s needs --%s\n", name, each)
			return nil, errUsage
		}
	}
	return flags.Args(), nil
}
