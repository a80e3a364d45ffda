package host

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"

	"sqledge.io/test-storage/control"
	"sqledge.io/test-storage/journal"
)

// publish gives a node access to a volume. It is refused while any other node has it: here, at the storage, is where "one node at
// a time" is true or not.
func (h *Host) publish(id, node string) (control.Export, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.volumes[id]
	if v == nil {
		return control.Export{}, unknownVolume(id)
	}
	if !h.nodes[node] {
		return control.Export{}, control.Refuse(codes.NotFound,
			"node %s is unknown to the storage host: its node plugin has not registered", node)
	}
	for _, other := range v.exports {
		// a liar has forgotten the exports that it declared gone
		forgotten := other.unpublished && h.modeOf(v).kind == modeLie
		if other.node != node && !forgotten {
			refusal := control.Refuse(codes.FailedPrecondition,
				"volume %s is exported to node %s and must be unpublished there before node %s can have it", id, other.node, node)
			line := journal.Entry{Event: journal.PublishRefused, Volume: id, Driver: v.driver, Node: node, Reason: refusal.Message}
			h.journal.Append(line)
			return control.Export{}, refusal
		}
	}
	e := v.exports[node]
	if e == nil {
		e = &export{volume: v, node: node, name: id + "." + node + "." + randomName(), journal: h.journal}
		v.exports[node] = e
		h.names[e.name] = e
	}
	e.unpublished, e.askedAt = false, time.Time{}
	h.journal.Append(e.entry(journal.Published))
	return h.describe(e), h.save()
}

// unpublish takes a node's access away in the way the mode says, and logs what the caller was told.
func (h *Host) unpublish(ctx context.Context, id, node string) error {
	asked := false
	for {
		wait, changed, err := h.tryUnpublish(id, node, &asked)
		if wait == 0 {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
			timer.Stop()
			return h.abandonUnpublish(id, node)
		}
		timer.Stop()
	}
}

// tryUnpublish decides once. A wait above zero means: not yet, come back then, or as soon as changed is closed.
func (h *Host) tryUnpublish(id, node string, asked *bool) (time.Duration, <-chan struct{}, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.volumes[id]
	if v == nil || v.exports[node] == nil {
		return 0, nil, nil // nothing is exported: what the caller wants is so
	}
	e, m := v.exports[node], h.modeOf(v)
	if !*asked {
		*asked = true
		line := e.entry(journal.UnpublishAsked)
		line.Mode = m.String()
		h.journal.Append(line)
	}
	answer := e.entry(journal.Unpublished)
	answer.Mode, answer.Reported = m.String(), journal.ReportedSuccess
	var err error
	switch m.kind {
	case modeLie:
		e.unpublished = true
		err = h.save()
	case modeFail:
		err = control.Refuse(codes.Internal, "volume %s cannot be unpublished from node %s: mode fail is set", id, node)
	case modeRefuse:
		if n := e.connections.Load(); n > 0 {
			err = control.Refuse(codes.FailedPrecondition,
				"volume %s is busy: node %s is alive and holds %d connections to it", id, node, n)
		} else {
			err = h.end(e)
		}
	case modeSlow:
		// counted from the first call: callers give up and ask again, and that must not make it take longer
		if e.askedAt.IsZero() {
			e.askedAt = time.Now()
		}
		if left := time.Until(e.askedAt.Add(m.delay)); left > 0 {
			return left, h.changed, nil
		}
		err = h.end(e)
	default:
		err = h.end(e)
	}
	if err != nil {
		answer.Reported, answer.Reason = journal.ReportedFailure, err.Error()
	}
	h.journal.Append(answer)
	return 0, nil, err
}

func (h *Host) abandonUnpublish(id, node string) error {
	err := control.Refuse(codes.DeadlineExceeded, "volume %s is still being unpublished from node %s", id, node)
	h.journal.Append(journal.Entry{
		Event: journal.Unpublished, Volume: id, Node: node, Reported: journal.ReportedFailure, Reason: err.Message,
	})
	return err
}

// revokeNow ends an export whatever the mode.
func (h *Host) revokeNow(id, node string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.volumes[id]
	if v == nil {
		return unknownVolume(id)
	}
	e := v.exports[node]
	if e == nil {
		return nil
	}
	return h.end(e)
}

// end revokes first and forgets afterwards: a crash in between leaves an export that must be revoked again, never a live one
// that nobody knows.
func (h *Host) end(e *export) error {
	e.revoke()
	delete(h.names, e.name)
	delete(e.volume.exports, e.node)
	return h.save()
}

func (h *Host) describe(e *export) control.Export {
	return control.Export{
		Node: e.node, Address: h.nbd.Addr().String(), Name: e.name,
		Connections: int(e.connections.Load()), Unpublished: e.unpublished,
	}
}
