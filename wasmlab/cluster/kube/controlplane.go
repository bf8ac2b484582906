package main

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"

	"github.com/spf13/pflag"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/featuregate"
	logsapi "k8s.io/component-base/logs/api/v1"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	controlleroptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	schedulerconfig "k8s.io/kubernetes/cmd/kube-scheduler/app/config"
	scheduleroptions "k8s.io/kubernetes/cmd/kube-scheduler/app/options"
	sched "k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/latest"
)

const (
	// The scheduler's defaults for all that it writes.
	eventsPerSecond = 50
	eventsAtOnce    = 100
)

// The functions here do what the cobra commands of the three components do, without the commands: those install
// signal handlers and logging once per process, and panic when a second component does it again.

// networks are the private ranges of a lab. Nothing routes them; objects need addresses all the same.
type networks struct{ services, pods string }

// runAPIServer serves on listener until ctx ends.
func runAPIServer(ctx context.Context, l layout, s *store, n networks, listener net.Listener) error {
	options := apiserveroptions.NewServerRunOptions()
	port := listener.Addr().(*net.TCPAddr).Port
	err := parse("kube-apiserver", options.Flags(), []string{
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", port),
		"--advertise-address=127.0.0.1", // else it looks for a default route, which a laptop may not have
		"--external-hostname=localhost",
		"--etcd-servers=" + s.endpoint,
		"--tls-cert-file=" + l.pki("apiserver.crt"),
		"--tls-private-key-file=" + l.pki("apiserver.key"),
		"--client-ca-file=" + l.pki("ca.crt"),
		"--kubelet-certificate-authority=" + l.pki("ca.crt"),
		"--kubelet-client-certificate=" + l.pki("apiserver-kubelet-client.crt"),
		"--kubelet-client-key=" + l.pki("apiserver-kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + l.pki("sa.pub"),
		"--service-account-signing-key-file=" + l.pki("sa.key"),
		"--service-cluster-ip-range=" + n.services,
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--enable-bootstrap-token-auth",
		"--anonymous-auth=false",
		"--allow-privileged",
		"--endpoint-reconciler-type=none", // it may not publish a loopback address, and there is no other
		"--profiling=false",
	})
	if err != nil {
		return err
	}
	options.SecureServing.Listener = listener
	registry := options.GenericServerRunOptions.ComponentGlobalsRegistry
	if err := registry.Set(); err != nil {
		return err
	}
	logsapi.ReapplyHandling = logsapi.ReapplyHandlingIgnoreUnchanged
	if err := logsapi.ValidateAndApply(options.Logs, utilfeature.DefaultFeatureGate); err != nil {
		return err
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{}) // components warn about their own use of old APIs
	completed, err := options.Complete(ctx)
	if err != nil {
		return err
	}
	if errs := completed.Validate(); len(errs) != 0 {
		return utilerrors.NewAggregate(errs)
	}
	utilfeature.DefaultFeatureGate.(featuregate.MutableFeatureGate).AddMetrics()
	return apiserver.Run(ctx, completed)
}

// runScheduler schedules until ctx ends.
func runScheduler(ctx context.Context, l layout) error {
	options := scheduleroptions.NewOptions()
	err := parse("kube-scheduler", *options.Flags, []string{
		"--kubeconfig=" + l.kubeconfig("scheduler"),
		"--leader-elect=false",
		"--secure-port=0",
		// At the default (50) the client-side limiter, not the scheduler, would be what a burst of pods measures.
		"--kube-api-qps=2000",
		"--kube-api-burst=4000",
	})
	if err != nil {
		return err
	}
	config, made, err := setupScheduler(ctx, options)
	if err != nil {
		return err
	}
	err = scheduler.Run(ctx, config, made)
	if ctx.Err() != nil {
		return nil // it always returns an error, "finished without leader elect" when all is well
	}
	return err
}

// setupScheduler is scheduler.Setup, but for the client of the events: that one keeps the limit that everything the
// scheduler writes has by default. Nobody waits for an event, and in a burst of pods they would take a tenth of the time
// that binding has.
func setupScheduler(
	ctx context.Context, options *scheduleroptions.Options,
) (*schedulerconfig.CompletedConfig, *sched.Scheduler, error) {
	var err error
	if options.ComponentConfig, err = latest.Default(); err != nil {
		return nil, nil, err
	}
	if errs := options.Validate(); len(errs) > 0 {
		return nil, nil, utilerrors.NewAggregate(errs)
	}
	config, err := options.Config(ctx)
	if err != nil {
		return nil, nil, err
	}
	slow := rest.CopyConfig(config.KubeConfig)
	slow.QPS, slow.Burst = eventsPerSecond, eventsAtOnce
	client, err := kubernetes.NewForConfig(slow)
	if err != nil {
		return nil, nil, err
	}
	config.EventBroadcaster = events.NewEventBroadcasterAdapterWithContext(ctx, client)
	complete := config.Complete()
	component := complete.ComponentConfig
	made, err := sched.New(ctx, complete.Client, complete.InformerFactory, complete.DynInformerFactory,
		func(name string) events.EventRecorderLogger { return complete.EventBroadcaster.NewRecorder(name) },
		sched.WithComponentConfigVersion(component.TypeMeta.APIVersion),
		sched.WithKubeConfig(complete.KubeConfig),
		sched.WithProfiles(component.Profiles...),
		sched.WithPercentageOfNodesToScore(component.PercentageOfNodesToScore),
		sched.WithPodMaxBackoffSeconds(component.PodMaxBackoffSeconds),
		sched.WithPodInitialBackoffSeconds(component.PodInitialBackoffSeconds),
		sched.WithPodMaxInUnschedulablePodsDuration(complete.PodMaxInUnschedulablePodsDuration),
		sched.WithExtenders(component.Extenders...),
		sched.WithParallelism(component.Parallelism),
	)
	return &complete, made, err
}

// runControllers runs the controller manager until ctx ends.
func runControllers(ctx context.Context, l layout, n networks) error {
	options, err := controlleroptions.NewKubeControllerManagerOptions()
	if err != nil {
		return err
	}
	all, disabled, aliases := controllers.KnownControllers(), controllers.ControllersDisabledByDefault(),
		controllers.ControllerAliases()
	flags := options.Flags(all, disabled, aliases)
	options.ParsedFlags = &flags
	err = parse("kube-controller-manager", flags, []string{
		"--kubeconfig=" + l.kubeconfig("controller-manager"),
		"--leader-elect=false",
		"--secure-port=0",
		"--kube-api-qps=500",
		"--kube-api-burst=1000",
		"--use-service-account-credentials=false",
		"--service-account-private-key-file=" + l.pki("sa.key"),
		"--root-ca-file=" + l.pki("ca.crt"),
		"--cluster-signing-cert-file=" + l.pki("ca.crt"),
		"--cluster-signing-key-file=" + l.pki("ca.key"),
		"--cluster-signing-duration=8760h",
		"--allocate-node-cidrs=true",
		"--cluster-cidr=" + n.pods,
		"--service-cluster-ip-range=" + n.services,
		"--controller-shutdown-timeout=2s",
		"--profiling=false",
		// Off: what needs a cloud, a metrics server or real volumes. On besides the default: what deletes bootstrap
		// tokens that have expired.
		"--controllers=*,token-cleaner-controller,-horizontal-pod-autoscaler-controller," +
			"-persistentvolume-attach-detach-controller,-persistentvolume-expander-controller",
	})
	if err != nil {
		return err
	}
	config, err := options.Config(ctx, all, disabled, aliases)
	if err != nil {
		return err
	}
	return controllers.Run(ctx, config.Complete())
}

// parse sets the options of one component from its own command line flags: they are its documented interface, while
// the fields behind them move between versions.
func parse(component string, sets cliflag.NamedFlagSets, args []string) error {
	flags := pflag.NewFlagSet(component, pflag.ContinueOnError)
	for _, name := range slices.Sorted(maps.Keys(sets.FlagSets)) {
		flags.AddFlagSet(sets.FlagSets[name])
	}
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%s: %w", component, err)
	}
	return nil
}
