package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"google.golang.org/grpc/codes"
)

// Client calls one storage host.
type Client struct {
	host string
	http *http.Client
}

// NewClient makes a client of the host at address (HOST:PORT). It connects only when used.
func NewClient(address string) *Client {
	transport := &http.Transport{
		DialContext: (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
		// a connection kept over a network cut would make the first call after it hang
		DisableKeepAlives: true,
	}
	return &Client{host: address, http: &http.Client{Transport: transport}}
}

// State reads everything.
func (c *Client) State(ctx context.Context) (State, error) {
	var state State
	return state, c.call(ctx, http.MethodGet, "/state", nil, &state)
}

// Volume reads one volume.
func (c *Client) Volume(ctx context.Context, id string) (Volume, error) {
	var volume Volume
	return volume, c.call(ctx, http.MethodGet, "/volumes/"+url.PathEscape(id), nil, &volume)
}

// CreateVolume makes a volume, or returns the one of that name.
func (c *Client) CreateVolume(ctx context.Context, wanted CreateVolume) (Volume, error) {
	var volume Volume
	return volume, c.call(ctx, http.MethodPost, "/volumes", wanted, &volume)
}

// ExpandVolume makes a volume larger, or returns it as it is if it is large enough.
func (c *Client) ExpandVolume(ctx context.Context, id string, wanted ExpandVolume) (Volume, error) {
	var volume Volume
	return volume, c.call(ctx, http.MethodPut, "/volumes/"+url.PathEscape(id)+"/size", wanted, &volume)
}

// DeleteVolume removes a volume and its data; one that does not exist is fine.
func (c *Client) DeleteVolume(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, "/volumes/"+url.PathEscape(id), nil, nil)
}

// Publish gives a node access.
func (c *Client) Publish(ctx context.Context, id, node string) (Export, error) {
	var export Export
	return export, c.call(ctx, http.MethodPut, exportPath(id, node), nil, &export)
}

// Unpublish takes a node's access away, in the way the volume's mode says.
func (c *Client) Unpublish(ctx context.Context, id, node string) error {
	return c.call(ctx, http.MethodDelete, exportPath(id, node), nil, nil)
}

// Revoke takes a node's access away whatever the mode.
func (c *Client) Revoke(ctx context.Context, id, node string) error {
	return c.call(ctx, http.MethodDelete, exportPath(id, node)+"?revoke=really", nil, nil)
}

// RegisterNode tells the host that a node exists: nothing is exported to unknown ones.
func (c *Client) RegisterNode(ctx context.Context, node string) error {
	return c.call(ctx, http.MethodPut, "/nodes/"+url.PathEscape(node), nil, nil)
}

// SetMode changes how unpublish behaves.
func (c *Client) SetMode(ctx context.Context, wanted SetMode) error {
	return c.call(ctx, http.MethodPut, "/mode", wanted, nil)
}

// Log copies the host's log.
func (c *Client) Log(ctx context.Context, to io.Writer) error {
	return c.call(ctx, http.MethodGet, "/log", nil, to)
}

func exportPath(id, node string) string {
	return "/volumes/" + url.PathEscape(id) + "/exports/" + url.PathEscape(node)
}

// call sends one request. Into is nil, an io.Writer for the raw body, or what the JSON body is decoded into.
func (c *Client) call(ctx context.Context, method, path string, body, into any) error {
	payload, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("cannot encode the request %s %s: %w", method, path, err)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+c.host+path, bytes.NewReader(payload))
	if err != nil {
		return fmt.Errorf("cannot form the request %s %s: %w", method, path, err)
	}
	answer, err := c.http.Do(request)
	if err != nil {
		code := codes.Unavailable
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			code = codes.DeadlineExceeded
		}
		return Refuse(code, "storage host %s did not answer: %v", c.host, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode >= http.StatusBadRequest {
		refusal := &Error{}
		if err := json.NewDecoder(answer.Body).Decode(refusal); err != nil || refusal.Number == 0 {
			return Refuse(codes.Internal, "storage host %s answered %s to %s %s", c.host, answer.Status, method, path)
		}
		refusal.Code = codes.Code(refusal.Number)
		return refusal
	}
	switch target := into.(type) {
	case nil:
		return nil
	case io.Writer:
		_, err = io.Copy(target, answer.Body)
	default:
		err = json.NewDecoder(answer.Body).Decode(target)
	}
	if err != nil {
		return Refuse(codes.Unavailable, "the answer of storage host %s to %s %s was cut short: %v", c.host, method, path, err)
	}
	return nil
}
