package main

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"time"
)

// The parts of an OCSP answer that are read: RFC 6960 section 4.2.1.
type (
	ocspResponse struct {
		Status asn1.Enumerated
		Bytes  struct {
			Type     asn1.ObjectIdentifier
			Response []byte
		} `asn1:"explicit,tag:0,optional"`
	}
	ocspBasic struct {
		Data struct {
			Version   int `asn1:"optional,default:0,explicit,tag:0"`
			Responder asn1.RawValue
			Produced  time.Time `asn1:"generalized"`
			Responses []ocspSingle
		}
	}
	ocspSingle struct {
		ID struct {
			Algorithm         pkix.AlgorithmIdentifier
			NameHash, KeyHash []byte
			Serial            *big.Int
		}
		Good    asn1.Flag `asn1:"tag:0,optional"`
		Revoked struct {
			At     time.Time       `asn1:"generalized"`
			Reason asn1.Enumerated `asn1:"explicit,tag:0,optional"`
		} `asn1:"tag:1,optional"`
		Unknown    asn1.Flag `asn1:"tag:2,optional"`
		ThisUpdate time.Time `asn1:"generalized"`
		NextUpdate time.Time `asn1:"generalized,explicit,tag:0,optional"`
	}
)

// logOCSP writes an ocsp.log line for each certificate that an answer is about.
func (s *sensor) logOCSP(x *file) {
	var whole ocspResponse
	var basic ocspBasic
	if _, err := asn1.Unmarshal(x.head, &whole); err != nil {
		return
	}
	if _, err := asn1.Unmarshal(whole.Bytes.Response, &basic); err != nil {
		return
	}
	for _, r := range basic.Data.Responses {
		o := s.logs.object(x.first)
		o.text("id", x.fuid)
		o.text("hashAlgorithm", "sha1")
		o.text("issuerNameHash", fmt.Sprintf("%X", r.ID.NameHash))
		o.text("issuerKeyHash", fmt.Sprintf("%X", r.ID.KeyHash))
		o.text("serialNumber", serial(r.ID.Serial))
		switch {
		case bool(r.Good):
			o.text("certStatus", "good")
		case r.Revoked.At.IsZero():
			o.text("certStatus", "unknown")
		default:
			o.text("certStatus", "revoked")
			o.when("revoketime", r.Revoked.At)
			o.text("revokereason", revokeReason(int(r.Revoked.Reason)))
		}
		o.when("thisUpdate", r.ThisUpdate)
		if !r.NextUpdate.IsZero() {
			o.when("nextUpdate", r.NextUpdate)
		}
		s.logs.write("ocsp", s.logs.done(o))
	}
}

// serial is a certificate's number in whole bytes.
func serial(n *big.Int) string { return fmt.Sprintf("%X", n.Bytes()) }

// revokeReason is CRLReason, RFC 5280 section 5.3.1.
func revokeReason(n int) string {
	names := []string{"unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded", "cessationOfOperation",
		"certificateHold", "", "removeFromCRL", "privilegeWithdrawn", "aACompromise"}
	if n < 0 || n >= len(names) {
		return ""
	}
	return names[n]
}
