package orchestrate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// mostOfPage is how long a page may be, in bytes. The longest that the stack
// serves, Loki's metrics, has a tenth of that.
const mostOfPage = 8 << 20

// QueryClient asks the services of a stack over HTTP: for a page, a document, or
// the answer to a query in the manner of Prometheus. Each question has a limit
// of time and each answer one of size. It may be used by several goroutines.
type QueryClient struct {
	client   *http.Client
	patience time.Duration
}

// NewQueryClient makes a client that waits so long for each answer.
func NewQueryClient(patience time.Duration) *QueryClient {
	// No proxy: every address asked is this machine's own or a container's.
	return &QueryClient{client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2, IdleConnTimeout: 10 * time.Second}}, patience: patience}
}

// StatusError is an answer that is none: another status than 200.
type StatusError struct {
	Code int
	Text string // the first line of what came with it
}

func (e *StatusError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("answers %d %s", e.Code, e.Text))
}

// Get returns what a page holds. An error is a *[StatusError], or the cause
// without the address that net/http puts before it: who asks knows it already.
func (q *QueryClient) Get(ctx context.Context, target string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, q.patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, unwrapURL(err)
	}
	resp, err := q.client.Do(req)
	if err != nil {
		return nil, unwrapURL(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, mostOfPage+1))
	switch {
	case resp.StatusCode != http.StatusOK:
		return nil, &StatusError{resp.StatusCode, strings.TrimSpace(firstLine(string(body)))}
	case err != nil:
		return nil, fmt.Errorf("read the answer: %w", err)
	case len(body) > mostOfPage:
		return nil, fmt.Errorf("read the answer: it has more than %d bytes", mostOfPage)
	}
	return body, nil
}

// JSON reads a document.
func (q *QueryClient) JSON(ctx context.Context, target string, document any) error {
	body, err := q.Get(ctx, target)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, document); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return nil
}

// Sample is one element of a vector: its labels, the name among them as
// "__name__", and its value.
type Sample struct {
	Labels map[string]string
	Value  float64
}

// Instant asks for a query's value at one time. Prometheus answers it at
// BASE/api/v1/query (https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries),
// Loki in the same form at BASE/loki/api/v1/query. Values has "query" and what
// else is asked, such as "time".
func (q *QueryClient) Instant(ctx context.Context, api string, values url.Values) ([]Sample, error) {
	var vector struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := q.JSON(ctx, api+"?"+values.Encode(), &vector); err != nil {
		return nil, err
	}
	var list []Sample
	for _, r := range vector.Data.Result {
		text, _ := r.Value[1].(string)
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("read the answer: %w", err)
		}
		list = append(list, Sample{r.Metric, value})
	}
	return list, nil
}

// unwrapURL drops the method and address that net/http puts before a cause:
// the service is named already.
func unwrapURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Errorf("%s %s: %w", op.Op, op.Addr, op.Err)
	}
	return err
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
