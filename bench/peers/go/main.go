// A typical sidecar in Go: an informer of client-go watches the pod, and net/http sends the
// heartbeats.
//
// It does podbeat's usual work. The settings and the members on the wire have the same names.
// GOMEMLIMIT and GOMAXPROCS are set from outside, as in a pod.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// How long to wait after SIGTERM for the event with the end of the task.
const settling = time.Second

type heartbeat struct {
	ContainerStatus    []containerStatus `json:"containerStatus,omitempty"`
	JobRetryCount      *int32            `json:"jobRetryCount,omitempty"`
	LastHeartbeat      bool              `json:"lastHeartbeat,omitempty"`
	Nonce              string            `json:"nonce"`
	PodHardwareDetails string            `json:"podHardwareDetails,omitempty"`
	PodName            string            `json:"podName"`
	PodUID             string            `json:"podUID"`
}

type containerStatus struct {
	Name  string         `json:"name"`
	State containerState `json:"state"`
}

type containerState struct {
	Waiting    *waiting    `json:"waiting,omitempty"`
	Running    *running    `json:"running,omitempty"`
	Terminated *terminated `json:"terminated,omitempty"`
}

type waiting struct {
	Message string `json:"message,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

type running struct {
	StartedAt *metav1.Time `json:"startedAt,omitempty"`
}

type terminated struct {
	ContainerID string       `json:"containerID,omitempty"`
	ExitCode    int32        `json:"exitCode"`
	FinishedAt  *metav1.Time `json:"finishedAt,omitempty"`
	Message     string       `json:"message,omitempty"`
	Reason      string       `json:"reason,omitempty"`
	Signal      int32        `json:"signal,omitempty"`
	StartedAt   *metav1.Time `json:"startedAt,omitempty"`
}

// The result of one look at the pod.
type look struct {
	statuses []containerStatus
	// Whether the task is over.
	isOver bool
}

type config struct {
	podName, namespace, podUID, hardware string
	jobRetryCount                        *int32
	ownContainer                         string
	heartbeatURL                         string
	tokenFile, caFile                    string
	nonce                                string
	interval, timeout                    time.Duration
	serviceAccount                       string
}

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func readConfig() (config, error) {
	read := config{
		podName:        os.Getenv("POD_NAME"),
		namespace:      os.Getenv("POD_NAMESPACE"),
		podUID:         os.Getenv("POD_UID"),
		hardware:       os.Getenv("POD_HARDWARE_DETAILS"),
		ownContainer:   env("PODBEAT_CONTAINER_NAME", "podbeat"),
		tokenFile:      os.Getenv("PODBEAT_TOKEN_FILE"),
		caFile:         os.Getenv("PODBEAT_CA_FILE"),
		nonce:          os.Getenv("PODBEAT_NONCE"),
		serviceAccount: env("PODBEAT_SERVICE_ACCOUNT_DIR", "/var/run/secrets/kubernetes.io/serviceaccount"),
	}
	var err error
	if read.interval, err = time.ParseDuration(env("PODBEAT_INTERVAL", "30s")); err != nil {
		return read, fmt.Errorf("PODBEAT_INTERVAL: %w", err)
	}
	if read.timeout, err = time.ParseDuration(env("PODBEAT_TIMEOUT", "10s")); err != nil {
		return read, fmt.Errorf("PODBEAT_TIMEOUT: %w", err)
	}
	if text := os.Getenv("JOB_RETRY_COUNT"); text != "" {
		count, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return read, fmt.Errorf("JOB_RETRY_COUNT: %w", err)
		}
		narrow := int32(count)
		read.jobRetryCount = &narrow
	}
	base := strings.TrimSuffix(os.Getenv("PODBEAT_SERVICE_URL"), "/")
	read.heartbeatURL = base + "/v1/tasks/runs/" + url.PathEscape(os.Getenv("TASK_RUN_ID")) + ":heartbeat"
	return read, nil
}

func timeOf(at metav1.Time) *metav1.Time {
	if at.IsZero() {
		return nil
	}
	return &at
}

func (c config) lookAt(pod *corev1.Pod) look {
	exits := map[string]*corev1.ContainerStateTerminated{}
	var seen look
	for _, status := range pod.Status.ContainerStatuses {
		if status.Name == c.ownContainer {
			continue
		}
		told := containerStatus{Name: status.Name}
		switch state := status.State; {
		case state.Terminated != nil:
			ended := state.Terminated
			exits[status.Name] = ended
			told.State.Terminated = &terminated{
				ContainerID: ended.ContainerID, ExitCode: ended.ExitCode, FinishedAt: timeOf(ended.FinishedAt),
				Message: ended.Message, Reason: ended.Reason, Signal: ended.Signal, StartedAt: timeOf(ended.StartedAt),
			}
		case state.Running != nil:
			told.State.Running = &running{StartedAt: timeOf(state.Running.StartedAt)}
		case state.Waiting != nil:
			told.State.Waiting = &waiting{Message: state.Waiting.Message, Reason: state.Waiting.Reason}
		default:
			continue
		}
		seen.statuses = append(seen.statuses, told)
	}
	tasks := 0
	seen.isOver = true
	for _, container := range pod.Spec.Containers {
		if container.Name == c.ownContainer {
			continue
		}
		tasks++
		ended := exits[container.Name]
		policy := pod.Spec.RestartPolicy
		isFinal := ended != nil && (policy == corev1.RestartPolicyNever ||
			policy == corev1.RestartPolicyOnFailure && ended.ExitCode == 0)
		seen.isOver = seen.isOver && isFinal
	}
	seen.isOver = seen.isOver && tasks > 0
	return seen
}

// Nothing reads them, and they are a large part of a cache.
func stripManagedFields(object any) (any, error) {
	if accessor, err := meta.Accessor(object); err == nil {
		accessor.SetManagedFields(nil)
	}
	return object, nil
}

// Starts the informer, which sends looks to the channel.
func (c config) watch(ctx context.Context, looks chan<- look) error {
	// Like rest.InClusterConfig, which supports no other directory.
	restConfig := &rest.Config{
		Host:            "https://" + net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")),
		BearerTokenFile: filepath.Join(c.serviceAccount, "token"),
		TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(c.serviceAccount, "ca.crt")},
	}
	clientset, err := kubernetes.NewForConfig(restConfig)
	if err != nil {
		return fmt.Errorf("making the client of the Kubernetes API: %w", err)
	}
	selector := fields.OneTermEqualSelector("metadata.name", c.podName).String()
	factory := informers.NewSharedInformerFactoryWithOptions(clientset, 0,
		informers.WithNamespace(c.namespace),
		informers.WithTweakListOptions(func(options *metav1.ListOptions) { options.FieldSelector = selector }),
		informers.WithTransform(stripManagedFields))
	informer := factory.Core().V1().Pods().Informer()
	hand := func(object any) {
		if pod, ok := object.(*corev1.Pod); ok {
			select {
			case looks <- c.lookAt(pod):
			case <-ctx.Done():
			}
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    hand,
		UpdateFunc: func(_, object any) { hand(object) },
	}); err != nil {
		return fmt.Errorf("listening to the informer: %w", err)
	}
	factory.Start(ctx.Done())
	return nil
}

type service struct {
	config
	client *http.Client
}

func newService(c config) (*service, error) {
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.caFile != "" {
		pem, err := os.ReadFile(c.caFile)
		if err != nil {
			return nil, err
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", c.caFile)
		}
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: tlsConfig, IdleConnTimeout: 90 * time.Second}
	return &service{config: c, client: &http.Client{Transport: transport, Timeout: c.timeout}}, nil
}

// Sends one heartbeat until it is accepted.
func (s *service) send(seen look, isLast bool) {
	nonce := s.nonce
	if nonce == "" {
		nonce = rand.Text()
	}
	body, err := json.Marshal(heartbeat{
		ContainerStatus: seen.statuses, JobRetryCount: s.jobRetryCount, LastHeartbeat: isLast, Nonce: nonce,
		PodHardwareDetails: s.hardware, PodName: s.podName, PodUID: s.podUID,
	})
	if err != nil {
		log.Printf("writing a heartbeat: %v", err)
		return
	}
	for tries := 1; ; tries++ {
		status, err := s.post(body)
		switch {
		case err != nil:
			log.Printf("sending a heartbeat: %v", err)
		case status < 300:
			return
		default:
			log.Printf("sending a heartbeat: %d", status)
			if status == http.StatusBadRequest || status == http.StatusUnprocessableEntity {
				return
			}
		}
		most := math.Min(30, 0.5*math.Pow(2, math.Min(float64(tries), 6)))
		time.Sleep(time.Duration(mathrand.Float64() * most * float64(time.Second)))
	}
}

func (s *service) post(body []byte) (int, error) {
	token, err := os.ReadFile(s.tokenFile)
	if err != nil {
		return 0, err
	}
	request, err := http.NewRequest(http.MethodPost, s.heartbeatURL, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	request.Header.Set("Content-Type", "application/json")
	answer, err := s.client.Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	// Read to the end, so that the connection is reused.
	_, err = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10))
	return answer.StatusCode, err
}

// Sends until the task is over or SIGTERM arrives, and returns the last look.
func (s *service) beat(ctx context.Context, looks <-chan look) look {
	var seen look
	s.send(seen, false)
	timer := time.NewTimer(s.interval)
	for {
		select {
		case <-ctx.Done():
			return settle(seen, looks)
		case news := <-looks:
			isChange := !reflect.DeepEqual(news.statuses, seen.statuses)
			seen = news
			if seen.isOver {
				return seen
			}
			if !isChange {
				continue
			}
		case <-timer.C:
		}
		timer.Reset(time.Duration(float64(s.interval) * (0.9 + 0.2*mathrand.Float64())))
		s.send(seen, false)
	}
}

// The event with the end of the task usually follows SIGTERM.
func settle(seen look, looks <-chan look) look {
	deadline := time.After(settling)
	for !seen.isOver {
		select {
		case seen = <-looks:
		case <-deadline:
			return seen
		}
	}
	return seen
}

func run() error {
	stopped, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	read, err := readConfig()
	if err != nil {
		return err
	}
	looks := make(chan look, 64)
	// SIGTERM must not cancel it, because the watch must continue then.
	if err := read.watch(context.Background(), looks); err != nil {
		return err
	}
	to, err := newService(read)
	if err != nil {
		return err
	}
	to.send(to.beat(stopped, looks), true)
	// The kubelet restarts a native sidecar that ends by itself, so it waits for SIGTERM.
	<-stopped.Done()
	return nil
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
