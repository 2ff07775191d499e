"""Requests to a cluster's API, each with a time limit, and its errors as sentences."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from steps.base.errors import UserError
from steps.config.scheduler import Kubernetes

CONNECT_LIMIT_S = 10.0
ANSWER_LIMIT_S = 60.0

UNKNOWN, FORBIDDEN, ABSENT, CONFLICT, INVALID, BUSY = 401, 403, 404, 409, 422, 429
"""Statuses of HTTP, as the API uses them."""

NEEDED = (
    *(("batch", "jobs", "", verb) for verb in ("create", "get", "delete")),
    ("", "pods", "", "list"),
    ("", "pods", "log", "get"),
    *(("networking.k8s.io", "networkpolicies", "", verb) for verb in ("create", "delete")),
)
"""The permissions that a user needs: group, resource, its part, verb."""

SERVICES = tuple(("", "services", "", verb) for verb in ("create", "delete"))
"""The same, for systems of several nodes."""


class SilenceError(Exception):
    """The API gave no usable answer; the message says what it gave instead."""


class Cluster:
    """One namespace of a cluster.

    Every method raises UserError for what the API refuses and SilenceError for what may pass.
    """

    def __init__(self, settings: Kubernetes) -> None:
        self.namespace = settings.namespace
        own = client.Configuration()
        try:
            config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=settings.kubeconfig,
                context=settings.context,
                client_configuration=own,
                persist_config=False,
            )
        except (ConfigException, OSError, ValueError, KeyError) as error:
            where = settings.kubeconfig or "where kubectl looks for it"
            raise UserError(
                f"there is no usable kubeconfig {where} ({error}); fix it until `kubectl get "
                "pods` works, or set scheduler.kubeconfig and scheduler.context"
            ) from error
        own.retries = False
        self.host = own.host
        api = client.ApiClient(own)
        self._batch, self._core = client.BatchV1Api(api), client.CoreV1Api(api)
        self._network = client.NetworkingV1Api(api)
        self._authorization = client.AuthorizationV1Api(api)

    # ---- before anything is started -----------------------------------------------------------

    def require(self, *, several_nodes: bool) -> None:
        """Raises UserError naming every permission that is missing here."""
        missing = [
            f"{verb} {resource}{'/' * bool(part)}{part}"
            for group, resource, part, verb in (*NEEDED, *(SERVICES if several_nodes else ()))
            if not self._allowed(group, resource, part, verb)
        ]
        if missing:
            raise UserError(
                f"you may not {', '.join(missing)} in namespace {self.namespace} of {self.host}; "
                "ask its administrator for a Role that allows it, or set scheduler.namespace"
            )

    def _allowed(self, group: str, resource: str, part: str, verb: str) -> bool:
        asked = client.V1ResourceAttributes(
            namespace=self.namespace,
            group=group,
            resource=resource,
            subresource=part or None,
            verb=verb,
        )
        review = client.V1SelfSubjectAccessReview(
            spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=asked)
        )
        answer = self._ask(self._authorization.create_self_subject_access_review, review)
        return bool(answer.status and answer.status.allowed)

    def try_out(self, made: Any) -> None:
        """Do everything that creating an object does, but don't keep it."""
        with contextlib.suppress(_Conflict):
            self.create(made, dry_run="All")

    # ---- objects ------------------------------------------------------------------------------

    def create(self, made: Any, **options: str) -> bool:
        """Create an object. False: one of this name exists."""
        calls = {
            "Job": self._batch.create_namespaced_job,
            "Service": self._core.create_namespaced_service,
            "NetworkPolicy": self._network.create_namespaced_network_policy,
        }
        try:
            self._ask(calls[made.kind], self.namespace, made, **options)
        except _Conflict:
            return False
        return True

    def delete(self, made: Any) -> None:
        """Delete an object; one that is already gone isn't an error."""
        calls = {
            "Job": self._batch.delete_namespaced_job,
            "Service": self._core.delete_namespaced_service,
            "NetworkPolicy": self._network.delete_namespaced_network_policy,
        }
        options = client.V1DeleteOptions(propagation_policy="Background")
        with contextlib.suppress(_AbsentError):
            self._ask(calls[made.kind], made.metadata.name, self.namespace, body=options)

    def job(self, name: str) -> Any | None:
        try:
            return self._ask(self._batch.read_namespaced_job, name, self.namespace)
        except _AbsentError:
            return None

    def pods(self, label: str, value: str) -> list[Any]:
        """The objects with the label, oldest first."""
        listed = self._ask(
            self._core.list_namespaced_pod, self.namespace, label_selector=f"{label}={value}"
        )
        return sorted(listed.items, key=lambda pod: str(pod.metadata.creation_timestamp))

    def log(self, pod: str, container: str) -> str | None:
        """The whole log; None while there is none, or while its node doesn't give it."""
        try:
            answer = self._ask(
                self._core.read_namespaced_pod_log,
                pod,
                self.namespace,
                container=container,
                _preload_content=False,
            )
        except (UserError, SilenceError, _AbsentError):
            return None
        return bytes(answer.data).decode(errors="replace")

    def complaint(self, name: str) -> str | None:
        """The last warning about an object; None without one, or without permission to see it."""
        try:
            listed = self._ask(
                self._core.list_namespaced_event,
                self.namespace,
                field_selector=f"involvedObject.name={name},type=Warning",
            )
        except (UserError, SilenceError, _AbsentError):
            return None
        last = [event.message for event in listed.items if event.message]
        return _line(last[-1]) if last else None

    # ---- calls --------------------------------------------------------------------------------

    def _ask(self, call: Any, *arguments: Any, **options: Any) -> Any:
        with self._sentences():
            return call(*arguments, **options, _request_timeout=(CONNECT_LIMIT_S, ANSWER_LIMIT_S))

    @contextlib.contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except ApiException as error:
            raise self._meaning(error) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise SilenceError(_line(str(getattr(error, "reason", None) or error))) from error
        except ValueError as error:  # of the client's models
            raise SilenceError(f"what answers isn't Kubernetes: {_line(str(error))}") from error

    def _meaning(self, error: ApiException) -> Exception:
        message = _message(error)
        if error.status == CONFLICT:
            return _Conflict(message)
        if error.status == ABSENT and "namespaces" not in message:
            return _AbsentError(message)
        if error.status == UNKNOWN:
            return LoginError(
                f"the cluster at {self.host} doesn't know you ({message}); log in again, so that "
                "`kubectl get pods` works"
            )
        if error.status == FORBIDDEN:
            return UserError(
                f"the cluster at {self.host} doesn't allow it ({message}); ask the administrator "
                f"of namespace {self.namespace}"
            )
        if error.status in (ABSENT, INVALID) or 400 <= int(error.status or 0) < 429:
            return UserError(f"Kubernetes refused the job: {message}")
        return SilenceError(f"status {error.status}: {message}")


class LoginError(UserError):
    """The API doesn't accept the token (any more): it may be renewed while jobs run."""


class _Conflict(Exception):
    """An object of this name exists."""


class _AbsentError(Exception):
    """The object doesn't exist."""


def _message(error: ApiException) -> str:
    try:
        return _line(str(json.loads(error.body or "")["message"]))
    except (ValueError, KeyError, TypeError):
        return _line(str(error.reason or error.body or "no reason given"))


def _line(text: str) -> str:
    return f"{' '.join(text.split()):.300}"
