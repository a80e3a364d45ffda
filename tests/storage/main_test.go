package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"sqledge.io/test-storage/audit"
)

// The test binary plays three parts, told apart by this variable: unset, it starts itself again in namespaces of its own, so that no
// mount, process or packet of a test can leave them; "inside", it runs the tests; "program", it is test-storage.
const partVariable = "TEST_STORAGE_PART"

// requiredVariable turns the skip for want of root or devices into a failure.
const requiredVariable = "TEST_STORAGE_NODE_TESTS"

func TestMain(m *testing.M) {
	switch os.Getenv(partVariable) {
	case "program":
		main()
		os.Exit(0)
	case "inside":
		if output, err := exec.Command("sh", "-c", "ip link set lo up && mount -t tmpfs tmpfs /run").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "cannot prepare the namespaces of the tests: %v: %s\n", err, output)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	if missing := missingForNodes(); missing != "" {
		fmt.Fprintf(os.Stderr, "SKIPPED: all tests of nodes, because %s\n", missing)
		if os.Getenv(requiredVariable) == "required" {
			os.Exit(1)
		}
		os.Exit(0)
	}
	arguments := append([]string{"--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--", os.Args[0]}, os.Args[1:]...)
	command := exec.Command("unshare", arguments...)
	command.Env = append(os.Environ(), partVariable+"=inside")
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	signal.Ignore(syscall.SIGQUIT) // `go test` sends it at the time limit; the child prints its goroutines
	if err := command.Run(); err != nil {
		os.Exit(1)
	}
}

func missingForNodes() string {
	if os.Getuid() != 0 {
		return "they need root"
	}
	for _, program := range []string{"nbdfuse", "mkfs.ext4", "e2fsck", "mkfs.xfs", "xfs_growfs", "unshare", "nsenter", "ip"} {
		if _, err := exec.LookPath(program); err != nil {
			return program + " is not installed (Debian: libnbd-bin fuse3 e2fsprogs xfsprogs util-linux iproute2)"
		}
	}
	for _, device := range []string{"/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(device); err != nil {
			return device + " is missing"
		}
	}
	return ""
}

const (
	driverName  = "revoking.storage.test"
	hostAddress = "127.0.0.1:7000"
	volumeSize  = 64 << 20
)

// cluster is a storage host, a controller, and nodes that are started by name.
type cluster struct {
	*testing.T
	folder     string
	controller csi.ControllerClient
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	folder, err := os.MkdirTemp("", "cluster")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{T: t, folder: folder}
	t.Cleanup(func() {
		if t.Failed() {
			for _, name := range []string{"host", "controller", "n1", "n2"} {
				text, _ := os.ReadFile(filepath.Join(folder, name+".out"))
				t.Logf("--- %s\n%s", name, text)
			}
		}
		_ = os.RemoveAll(folder)
	})
	c.run("host", "host", "--listen", hostAddress, "--data", filepath.Join(folder, "data"), "--log", c.logPath())
	c.run("controller", "controller", "--driver", driverName, "--endpoint", "unix://"+c.socket("controller"), "--host", hostAddress)
	c.controller = csi.NewControllerClient(c.dial("controller"))
	return c
}

func (c *cluster) logPath() string           { return filepath.Join(c.folder, "storage.log") }
func (c *cluster) socket(name string) string { return filepath.Join(c.folder, name+".sock") }

// run starts test-storage in the background, in the tests' own namespaces.
func (c *cluster) run(name string, arguments ...string) {
	c.Helper()
	c.background(name, exec.Command(os.Args[0], arguments...))
}

// background starts a command that ends with the test.
func (c *cluster) background(name string, command *exec.Cmd) *exec.Cmd {
	c.Helper()
	output, err := os.OpenFile(filepath.Join(c.folder, name+".out"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		c.Fatal(err)
	}
	defer output.Close()
	command.Env = append(os.Environ(), partVariable+"=program")
	command.Stdout, command.Stderr = output, output
	if err := command.Start(); err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	return command
}

func (c *cluster) dial(name string) *grpc.ClientConn {
	c.Helper()
	c.waitFor(name+" serves", func() bool {
		conn, err := net.Dial("unix", c.socket(name))
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	conn, err := grpc.NewClient("unix://"+c.socket(name), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (c *cluster) waitFor(what string, condition func() bool) {
	c.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.Fatalf("in vain: %s", what)
		}
	}
}

// ctl runs the command line tool.
func (c *cluster) ctl(words ...string) string {
	c.Helper()
	command := exec.Command(os.Args[0], append([]string{"ctl", "--host", hostAddress}, words...)...)
	command.Env = append(os.Environ(), partVariable+"=program")
	output, err := command.CombinedOutput()
	if err != nil {
		c.Fatalf("ctl %s: %v: %s", strings.Join(words, " "), err, output)
	}
	return string(output)
}

// check runs the command line tool's judgement of the log and wants its exit code to agree with what it found.
func (c *cluster) check() audit.Findings {
	c.Helper()
	command := exec.Command(os.Args[0], "check", "--log", c.logPath())
	command.Env = append(os.Environ(), partVariable+"=program")
	output, _ := command.Output()
	var found audit.Findings
	if err := json.Unmarshal(output, &found); err != nil {
		c.Fatalf("check printed %q: %v", output, err)
	}
	if clean := command.ProcessState.ExitCode() == 0; clean != found.Clean() {
		c.Fatalf("check ended with %d and found %+v", command.ProcessState.ExitCode(), found)
	}
	return found
}

func (c *cluster) within(limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	c.Cleanup(cancel)
	return ctx
}
