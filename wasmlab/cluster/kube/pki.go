package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Names that other parts rely on.
const (
	// kubeletClientName is who the API server says it is when it calls a node; nodes let in nobody else.
	kubeletClientName = "kube-apiserver-kubelet-client"
	caName            = "wasmlab-ca"
	caYears           = 10
	leafYears         = 1
)

// authority is the lab's one certificate authority. It lives as long as the directory, because nodes keep
// certificates that it signed. Everything below it is made anew at every start, so that nothing ever expires.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
}

// makePKI creates whatever is missing in pki/, renews the leaf certificates and writes the kubeconfigs.
func makePKI(l layout, server string, serviceIP net.IP) error {
	ca, err := loadOrCreateCA(l)
	if err != nil {
		return &failure{exitUnusable, fmt.Errorf("the keys in %s cannot be used: %w", l.path("pki"), err),
			"restore them, or begin anew in another directory (nodes would have to join again)"}
	}
	if err := loadOrCreateServiceAccountKey(l); err != nil {
		return &failure{exitUnusable, fmt.Errorf("the service account key cannot be used: %w", err),
			"restore it, or remove " + l.pki("sa.key") + " (tokens issued with it become invalid)"}
	}
	serving := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback, serviceIP},
	}
	if _, _, err := ca.issue(l, "apiserver", serving); err != nil {
		return err
	}
	if _, _, err := ca.issue(l, "apiserver-kubelet-client", client(kubeletClientName)); err != nil {
		return err
	}
	// The scheduler and the controller manager are masters too: as their ordinary users they would wait for the
	// RBAC bootstrap of the API server they start together with, which costs seconds of back-off.
	for who, subject := range map[string]*x509.Certificate{
		"admin":              client("wasmlab-admin", "system:masters"),
		"scheduler":          client("system:kube-scheduler", "system:masters"),
		"controller-manager": client("system:kube-controller-manager", "system:masters"),
	} {
		cert, key, err := ca.issue(l, "", subject)
		if err != nil {
			return err
		}
		if err := writeKubeconfig(l.kubeconfig(who), server, ca.pem, cert, key); err != nil {
			return err
		}
	}
	return nil
}

func client(name string, groups ...string) *x509.Certificate {
	return &x509.Certificate{
		Subject:     pkix.Name{CommonName: name, Organization: groups},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}

func loadOrCreateCA(l layout) (*authority, error) {
	certPEM, err := os.ReadFile(l.pki("ca.crt"))
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Stat(l.pki("ca.key")); err == nil {
			return nil, errors.New("ca.key is there, ca.crt is not")
		}
		return createCA(l)
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(certPEM)
	if block == nil {
		return nil, errors.New("ca.crt is not PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("ca.crt: %w", err)
	}
	key, err := readKey(l.pki("ca.key"))
	if err != nil {
		return nil, err
	}
	if public, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(key.Public()) {
		return nil, errors.New("ca.crt and ca.key do not belong together")
	}
	if time.Now().AddDate(leafYears, 0, 0).After(cert.NotAfter) {
		return nil, fmt.Errorf("ca.crt expires on %s", cert.NotAfter.Format(time.DateOnly))
	}
	return &authority{cert: cert, key: key, pem: certPEM}, nil
}

func createCA(l layout) (*authority, error) {
	key, err := createKey(l.pki("ca.key"))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: caName},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := sign(template, template, key.Public(), key, caYears)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	ca := &authority{cert: cert, key: key, pem: encode("CERTIFICATE", der)}
	return ca, writeFile(l.pki("ca.crt"), ca.pem)
}

// issue makes a key and a certificate for it; with a name, both also become files.
func (ca *authority) issue(l layout, name string, template *x509.Certificate) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	der, err := sign(template, ca.cert, private.Public(), ca.key, leafYears)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	cert, key = encode("CERTIFICATE", der), encode("PRIVATE KEY", keyDER)
	if name == "" {
		return cert, key, nil
	}
	if err := writeFile(l.pki(name+".key"), key); err != nil {
		return nil, nil, err
	}
	return cert, key, writeFile(l.pki(name+".crt"), cert)
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer, years int) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	// An hour back, because the clock of a laptop that just woke up may step backwards.
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().AddDate(years, 0, 0)
	return x509.CreateCertificate(rand.Reader, template, parent, public, key)
}

func loadOrCreateServiceAccountKey(l layout) error {
	key, err := readKey(l.pki("sa.key"))
	if errors.Is(err, os.ErrNotExist) {
		key, err = createKey(l.pki("sa.key"))
	}
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	return writeFile(l.pki("sa.pub"), encode("PUBLIC KEY", der))
}

func createKey(name string) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	// SEC 1 and not PKCS #8: the controller manager's signer reads both, its token generator wants this one.
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writeFile(name, encode("EC PRIVATE KEY", der))
}

func readKey(name string) (crypto.Signer, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s is not PEM", name)
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return key, nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func writeKubeconfig(name, server string, ca, cert, key []byte) error {
	config := clientcmdapi.NewConfig()
	config.Clusters["wasmlab"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca}
	config.AuthInfos["wasmlab"] = &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}
	config.Contexts["wasmlab"] = &clientcmdapi.Context{Cluster: "wasmlab", AuthInfo: "wasmlab"}
	config.CurrentContext = "wasmlab"
	text, err := clientcmd.Write(*config)
	if err != nil {
		return err
	}
	return writeFile(name, text)
}
