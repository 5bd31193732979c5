"""The Kubernetes adapter: informers, the job's status, Secrets, Node objects, the CRD. Nothing else speaks to the API.

What leaves this package are the objects and errors of `cloudhub.taskmanager.ports`.
"""

from cloudhub.kube.client import KubeClient
from cloudhub.kube.crd import crd_yaml, ensure_crd
from cloudhub.kube.edgenodes import EdgeNodes
from cloudhub.kube.informer import Informer
from cloudhub.kube.jobapi import JobAPI, find_job_api, follow_job_api
from cloudhub.kube.jobs import JobInformer
from cloudhub.kube.leases import LeaseKeeper
from cloudhub.kube.nodes import NodeInformer
from cloudhub.kube.registrar import NodeRegistrar
from cloudhub.kube.secrets import SecretReader

__all__ = [
    "EdgeNodes",
    "Informer",
    "JobAPI",
    "JobInformer",
    "KubeClient",
    "LeaseKeeper",
    "NodeInformer",
    "NodeRegistrar",
    "SecretReader",
    "crd_yaml",
    "ensure_crd",
    "find_job_api",
    "follow_job_api",
]
