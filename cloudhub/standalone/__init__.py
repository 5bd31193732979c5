"""An embedded Kubernetes API server: enough of the API for kubectl and client libraries, for one machine.

It is for small fleets, for trying out, and for tests; a real cluster is for more. Objects are kept in SQLite, served
over TLS to the holder of one bearer token. `server.StandaloneAPI` starts it. One request's way: `server` (token,
errors), `rest` (verbs), `writes` and `patching` (what becomes of an object), `storage` (one committer, one order),
`history` and `watch` (who hears of it). What it does not have is answered with 404 or 405 and a Status object.

Where it differs from a cluster's API server, as far as is known:

Access
- One token that may do everything: no users, RBAC, impersonation, admission webhooks, quotas, audit, or flow control;
  no access review APIs, so `kubectl auth can-i` fails.
- A request without a token is 401, not an anonymous user's 403. `/healthz`, `/livez`, `/readyz`, `/version` need
  none.

What is served
- Only namespaces, nodes, secrets, configmaps, events (v1 and events.k8s.io/v1), leases, customresourcedefinitions,
  and the resources of installed definitions. No pods, service accounts, services, workloads; no proxy, exec or log.
- Subresources: `status` alone. No `scale`, no `finalize` of namespaces.
- No controllers: nothing is garbage collected by ownerReferences, so `propagationPolicy` is read and has no effect;
  no node lifecycle. There are controllers of two kinds only: the content of a deleted namespace or definition is
  deleted with it, and Events go an hour after they were last seen.
- The namespace kubeedge is there from the start; `default`, `kube-system` and `kube-public` cannot be deleted.

Wire
- Answers are JSON only; protobuf, CBOR and YAML answers are not made, HTTP/2 is not spoken, nothing is compressed.
  Bodies may be JSON or YAML; protobuf is read for Namespaces, Secrets, ConfigMaps, Events, Leases and delete options.
- Items of a list carry apiVersion and kind, also for built-in kinds.
- Unknown paths are answered with a Status, where a cluster answers plain text.
- A request for pods is 403, not 404: `kubectl describe node` goes on without them then.
- `?pretty`, `gracePeriodSeconds` and `timeout` are taken and have no effect. Deprecated `/watch/` paths are 404.

Objects
- CustomResourceDefinitions: conversion strategy None only, no webhooks; a kind that is served already is refused
  (422), where a cluster accepts the definition with NamesAccepted=False; conditions stand at once in the answer to
  the write.
- CEL rules have CEL's own functions and Kubernetes' for lists, regular expressions and strings. Others (optional types,
  quantities, addresses, URLs, sets, formats, the authorizer) are refused when the definition is made. There is no cost
  budget, and a type error that a cluster finds when the definition is made may show when the rule is first asked.
- Server-side apply of a field that the schema does not have is 400, where a cluster says 500. Managers of several
  versions of a kind are compared as if they were of one.
- An object does not keep the version that it was stored as: one that is older than its definition is read by the schema
  of the version that is stored now.
- A PUT or POST of an object larger than 1.5 MiB is 413; a cluster says 500 out of etcd's error. Requests end at 3
  MiB, as in a cluster.
- A create with a resourceVersion is 400, where a cluster says 500.
- A Secret's base64 error names the field, not the byte.

Lists and watches
- One revision counts over all resources, as with etcd. Watch history is in memory: after a restart, a watch from a
  revision before it is told 410 and lists anew. The same happens when 16384 events or 32 MiB of one resource have
  passed.
- A watch from a revision that was never given (another data directory) is told 410 at once; a cluster waits.
- `resourceVersionMatch=Exact` and continued lists reach back as far as that history.
- Bookmarks come once a minute, and at the end of a watch.
"""
