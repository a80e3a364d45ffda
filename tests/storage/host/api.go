package host

import (
	"encoding/json"
	"errors"
	"net/http"

	"google.golang.org/grpc/codes"

	"sqledge.io/test-storage/control"
)

// routes is the HTTP control interface; README.md lists it.
func (h *Host) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, _ *http.Request) { answer(w, h.state(), nil) })
	mux.HandleFunc("GET /log", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		http.ServeFile(w, r, h.logPath)
	})
	mux.HandleFunc("PUT /mode", func(w http.ResponseWriter, r *http.Request) {
		var wanted control.SetMode
		if decode(w, r, &wanted) {
			answer(w, nil, h.setMode(wanted.Volume, wanted.Mode))
		}
	})
	mux.HandleFunc("PUT /nodes/{node}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, nil, h.registerNode(r.PathValue("node")))
	})
	mux.HandleFunc("GET /volumes", func(w http.ResponseWriter, _ *http.Request) { answer(w, h.state().Volumes, nil) })
	mux.HandleFunc("POST /volumes", func(w http.ResponseWriter, r *http.Request) {
		var wanted control.CreateVolume
		if decode(w, r, &wanted) {
			volume, err := h.createVolume(wanted)
			answer(w, volume, err)
		}
	})
	mux.HandleFunc("GET /volumes/{id}", func(w http.ResponseWriter, r *http.Request) {
		volume, err := h.volume(r.PathValue("id"))
		answer(w, volume, err)
	})
	mux.HandleFunc("PUT /volumes/{id}/size", func(w http.ResponseWriter, r *http.Request) {
		var wanted control.ExpandVolume
		if decode(w, r, &wanted) {
			volume, err := h.expandVolume(r.PathValue("id"), wanted)
			answer(w, volume, err)
		}
	})
	mux.HandleFunc("DELETE /volumes/{id}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, nil, h.deleteVolume(r.PathValue("id")))
	})
	mux.HandleFunc("PUT /volumes/{id}/exports/{node}", func(w http.ResponseWriter, r *http.Request) {
		export, err := h.publish(r.PathValue("id"), r.PathValue("node"))
		answer(w, export, err)
	})
	mux.HandleFunc("DELETE /volumes/{id}/exports/{node}", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("revoke") == "really" {
			answer(w, nil, h.revokeNow(r.PathValue("id"), r.PathValue("node")))
			return
		}
		answer(w, nil, h.unpublish(r.Context(), r.PathValue("id"), r.PathValue("node")))
	})
	return mux
}

func decode(w http.ResponseWriter, r *http.Request, into any) bool {
	err := json.NewDecoder(r.Body).Decode(into)
	if err != nil {
		answer(w, nil, control.Refuse(codes.InvalidArgument, "the body of %s %s is not the JSON it should be: %v", r.Method, r.URL.Path, err))
	}
	return err == nil
}

func answer(w http.ResponseWriter, body any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		refusal := &control.Error{}
		if !errors.As(err, &refusal) {
			refusal = control.Refuse(codes.Internal, "%v", err)
		}
		w.WriteHeader(httpStatus(refusal.Code))
		body = refusal
	}
	if body == nil {
		body = struct{}{}
	}
	// the caller may be gone; then there is nobody left to tell
	_ = json.NewEncoder(w).Encode(body)
}

func httpStatus(code codes.Code) int {
	switch code {
	case codes.NotFound:
		return http.StatusNotFound
	case codes.InvalidArgument, codes.OutOfRange:
		return http.StatusBadRequest
	case codes.AlreadyExists, codes.FailedPrecondition:
		return http.StatusConflict
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	default:
		return http.StatusInternalServerError
	}
}
