package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	rbac "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

const pollInterval = 20 * time.Millisecond

// bindings are the grants that a node needs to join, as kubeadm makes them. Client certificates are approved by the
// controller manager; serving certificates wait for a person: `kubectl certificate approve NODE-tls`.
var bindings = []struct{ name, role, kind, subject string }{
	{"wasmlab:node-bootstrapper", "system:node-bootstrapper", rbac.GroupKind, "system:bootstrappers"},
	{"wasmlab:approve-first-certificate", "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
		rbac.GroupKind, "system:bootstrappers"},
	{"wasmlab:approve-renewed-certificate", "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
		rbac.GroupKind, "system:nodes"},
	{"wasmlab:apiserver-to-nodes", "system:kubelet-api-admin", rbac.UserKind, kubeletClientName},
}

func adminClient(l layout) (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", l.kubeconfig("admin"))
	if err != nil {
		return nil, err
	}
	config.QPS = -1 // no client-side limit
	config.Timeout = 10 * time.Second
	return kubernetes.NewForConfig(config)
}

// waitServing waits until the API server says that it is ready.
func waitServing(ctx context.Context, client kubernetes.Interface) error {
	return poll(ctx, "the API server", func() (bool, error) {
		_, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err == nil, err
	})
}

// prepareCluster makes the grants and waits for what the first pod needs: before the default service account
// exists, creating a pod is forbidden.
func prepareCluster(ctx context.Context, client kubernetes.Interface) error {
	for _, b := range bindings {
		binding := &rbac.ClusterRoleBinding{
			ObjectMeta: meta.ObjectMeta{Name: b.name},
			RoleRef:    rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "ClusterRole", Name: b.role},
			Subjects:   []rbac.Subject{{APIGroup: rbac.GroupName, Kind: b.kind, Name: b.subject}},
		}
		_, err := client.RbacV1().ClusterRoleBindings().Create(ctx, binding, meta.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create ClusterRoleBinding %s: %w", b.name, err)
		}
	}
	return poll(ctx, "the default service account", func() (bool, error) {
		_, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", meta.GetOptions{})
		return err == nil, err
	})
}

// poll calls check until it is true or ctx ends; what is said then includes why the last check failed.
func poll(ctx context.Context, what string, check func() (bool, error)) error {
	var last error
	for {
		ok, err := check()
		if ok {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%s is not ready: %w", what, context.Cause(ctx)), last)
		case <-time.After(pollInterval):
		}
	}
}
