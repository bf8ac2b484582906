package main

import (
	"context"
	"os"

	_ "k8s.io/client-go/plugin/pkg/client/auth" // kubeconfigs may name any authentication plugin
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// runKubectl is cmd/kubectl/kubectl.go of Kubernetes, reached as a subcommand. kubectl reads os.Args itself (for
// plugins, verbosity and its own name in messages), so they are rewritten to what it expects.
func runKubectl(args []string) error {
	os.Args = append([]string{"kubectl"}, args...)
	if _, err := logs.GlogSetter(cmd.GetLogVerbosity(os.Args)); err != nil {
		return err
	}
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err) // prints as kubectl does, and exits with the code of the error
	}
	return nil
}

// runKubelet is cmd/kubelet/kubelet.go of Kubernetes.
func runKubelet(args []string) error {
	os.Args = append([]string{"kubelet"}, args...)
	os.Exit(cli.Run(kubelet.NewKubeletCommand(context.Background())))
	return nil
}
