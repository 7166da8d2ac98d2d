"""A lifecycle node that answers while it loads, survives wrong requests and says why a transition failed."""

from __future__ import annotations

import logging
import threading
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node

from moving_object_detector.common.errors import UserError, foreign
from moving_object_detector.nodes.qos import QosError

log = logging.getLogger(__name__)


class ManagedNode(LifecycleNodeMixin, Node):
    """Adds to rclpy's lifecycle what it lacks.

    A transition may take its time: give the executor two threads, and the state, parameters, services and timers stay
    alive meanwhile. An exception in a transition is logged and refuses it, where rclpy is silent. A request for a
    transition that the state does not have is refused, where rclpy before Kilted ends the executor (its issue 1209).
    The node can be destroyed while it loads.
    """

    def __init__(self, name: str) -> None:
        Node.__init__(self, name, automatically_declare_parameters_from_overrides=True)
        LifecycleNodeMixin.__init__(self, callback_group=ReentrantCallbackGroup())
        self.refusal = ''
        """Why the last transition failed; empty when it succeeded."""
        self.loading = False
        """Whether :meth:`load` runs; it cannot be interrupted."""
        self._destroyed = False
        self._resources = threading.RLock()
        self._guard_requests()

    @property
    def state(self) -> str:
        """The lifecycle's state, such as ``active``."""
        return str(self._state_machine.current_state[1])

    # What a subclass does in its transitions. A UserError, or any other, refuses the transition.

    @abstractmethod
    def load(self) -> Any:
        """Make what takes long; touch no ROS entity."""

    @abstractmethod
    def configure(self, loaded: Any) -> None:
        """Go from unconfigured to inactive with what :meth:`load` has made."""

    @abstractmethod
    def activate(self) -> None:
        """Go from inactive to active."""

    @abstractmethod
    def deactivate(self) -> None:
        """Go from active to inactive."""

    @abstractmethod
    def release(self) -> None:
        """Let go of everything, from any state, also half-way into it."""

    # Transitions

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and configure; a refusal leads back to unconfigured."""

        def configure() -> None:
            self.loading = True
            try:
                loaded = self.load()
            finally:
                self.loading = False
            with self._resources:
                if not self._destroyed:
                    self.configure(loaded)

        result = self._attempt('configure', configure)
        if result != TransitionCallbackReturn.SUCCESS:
            self._let_go()
        return result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Activate; a refusal leads back to inactive."""
        super().on_activate(state)
        result = self._attempt('activate', self.activate)
        if result != TransitionCallbackReturn.SUCCESS:
            super().on_deactivate(state)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Deactivate; leads to inactive."""
        result = self._attempt('deactivate', self.deactivate)
        super().on_deactivate(state)
        return result

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything; leads to unconfigured."""
        return self._attempt('cleanup', self._let_go)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything; leads to finalized, which only the end of the process leaves."""
        return self._attempt('shutdown', self._let_go)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything; leads to unconfigured."""
        self._let_go()
        return TransitionCallbackReturn.SUCCESS

    def start(self) -> None:
        """Configure and activate, unless somebody else has begun to."""
        try:
            if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
                self.trigger_activate()
        except RuntimeError as error:
            log.warning('autostart gives way to another request: %s', error)

    def destroy_node(self) -> None:
        """Release everything and leave the graph."""
        with self._resources:
            self._destroyed = True
            self.release()
        super().destroy_node()

    def _let_go(self) -> None:
        with self._resources:
            self.release()

    def _attempt(self, transition: str, action: Callable[[], None]) -> TransitionCallbackReturn:
        name = self.get_fully_qualified_name()
        remedy = (
            f'. When it is put right (ros2 param set {name} ...), try again: ros2 lifecycle set {name} {transition}'
        )
        try:
            action()
        except QosError as error:
            self.refusal, remedy = str(error), ''
        except UserError as error:
            self.refusal = str(error)
        except Exception as error:
            log.exception('please report this')
            self.refusal = f'{type(error).__name__}: {foreign(error)}'
        else:
            self.refusal = ''
            return TransitionCallbackReturn.SUCCESS
        log.error('%s refused: %s%s', transition, self.refusal, remedy)
        return TransitionCallbackReturn.FAILURE

    def _guard_requests(self) -> None:
        service = self._service_change_state
        change = service.callback

        def guarded(request: Any, response: Any) -> Any:
            try:
                return change(request, response)
            except RuntimeError as error:
                wanted = foreign(request.transition.label or request.transition.id)
                log.error('transition %s refused: the node is %s (%s)', wanted, self.state, error)
                response.success = False
                return response

        service.callback = guarded
        for service in self.services:
            if service.srv_type is SetParameters:
                service.callback = partial(_set_each, service.callback)
            elif service.srv_type is SetParametersAtomically:
                service.callback = partial(_set_all, service.callback)


# rclpy never answers a request with a parameter that it cannot read, such as one of an unknown type.


def _set_each(answer: Callable[[Any, Any], Any], request: Any, response: Any) -> Any:
    """Answer a request of SetParameters, each parameter by itself."""
    for parameter in request.parameters:
        try:
            one = answer(SetParameters.Request(parameters=[parameter]), SetParameters.Response())
            response.results += one.results
        except Exception as error:  # noqa: BLE001, PERF203 - whatever it is, the answer is a refusal
            response.results.append(_refusal(error))
    return response


def _set_all(answer: Callable[[Any, Any], Any], request: Any, response: Any) -> Any:
    """Answer a request of SetParametersAtomically."""
    try:
        return answer(request, response)
    except Exception as error:  # noqa: BLE001 - as above
        response.result = _refusal(error)
        return response


def _refusal(error: Exception) -> SetParametersResult:
    return SetParametersResult(successful=False, reason=f'{type(error).__name__}: {foreign(error)}')
