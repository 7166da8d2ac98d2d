"""The lifecycle node around the detector: it answers while loading, survives bad requests and explains refusals."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.subscription import Subscription
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger

from moving_object_detector.common.errors import UserError, foreign
from moving_object_detector.detection.odometry import Odometry
from moving_object_detector.nodes.camera import ImageInput, hear_motion
from moving_object_detector.nodes.messages import Statistics
from moving_object_detector.nodes.outputs import Outputs
from moving_object_detector.nodes.parameters import (
    Parameters,
    QosError,
    checked_overrides,
    overridable,
    unknown_overrides,
)
from moving_object_detector.nodes.pipeline import Pipeline
from moving_object_detector.nodes.runtime import topic_name

log = logging.getLogger(__name__)

STATUS_PERIOD = 1.0
ALL_MASKED = 0.9
"""Share of images with a mask above which nothing is said."""
HALF_MASKED = 0.5
"""Share at or below which the status is a warning."""
REMEDIES = {'unconfigured': 'configure', 'inactive': 'activate'}
"""Transition that leads on, by the name of a state without images."""


class DetectNode(LifecycleNodeMixin, Node):
    """Configure loads the model and advertises, activate subscribes, cleanup frees the memory.

    Transitions may be slow: with two executor threads, state, parameters, services and timers stay responsive. Where
    rclpy would be silent or die (an exception in a transition; a transition that the state does not have, its issue
    1209), the request is refused and the reason logged. The node can be destroyed while it loads.
    """

    def __init__(self, name: str, arguments: Sequence[str] = ()) -> None:
        Node.__init__(self, name, automatically_declare_parameters_from_overrides=True)
        LifecycleNodeMixin.__init__(self, callback_group=ReentrantCallbackGroup())
        self.loading = False
        """Whether the model is being loaded, which cannot be interrupted."""
        self._refusal = ''  # why the last transition failed
        self._destroyed = False
        self._resources = threading.RLock()
        self._guard_requests()
        self._pipeline: Pipeline | None = None
        self._camera: ImageInput | None = None
        self._odometry: Odometry | None = None
        self._motion_inputs: list[Subscription] = []
        self._statistics = Statistics()
        self._engine = ''
        self._enabled = True
        self._settings = Parameters(self, arguments)
        with checked_overrides(self, '/diagnostics'):
            self._diagnostics = self.create_publisher(
                DiagnosticArray, '/diagnostics', 10, qos_overriding_options=overridable()
            )
        self.create_service(Trigger, '~/reset', self._on_reset)
        self.create_service(SetBool, '~/enable', self._on_enable)
        # Not the node's clock: the status is needed most when simulated time stands still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(STATUS_PERIOD, self._on_status, clock=steady)
        if self._settings.config.autostart:
            group = MutuallyExclusiveCallbackGroup()
            self._starter = self.create_timer(0.0, self._autostart, callback_group=group, clock=steady)

    def _autostart(self) -> None:
        self._starter.cancel()
        try:
            if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
                self.trigger_activate()
        except RuntimeError as error:
            log.warning('autostart stopped, another lifecycle request came first: %s', error)

    @property
    def state(self) -> str:
        """The lifecycle's state, such as ``active``."""
        return str(self._state_machine.current_state[1])

    # Transitions

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, advertise the results and start the worker thread; after a refusal, back to unconfigured."""
        result = self._attempt('configure', self._configure)
        if result != TransitionCallbackReturn.SUCCESS:
            self._release()
        return result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the images; after a refusal, back to inactive."""
        super().on_activate(state)
        result = self._attempt('activate', self._subscribe)
        if result != TransitionCallbackReturn.SUCCESS:
            # Otherwise the images would still be heard, and twice after the next attempt.
            self._unsubscribe()
            super().on_deactivate(state)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and discard the frames, but keep the model; leads to inactive."""
        result = self._attempt('deactivate', self._unsubscribe)
        super().on_deactivate(state)
        return result

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and remove the topics; leads to unconfigured."""
        return self._attempt('cleanup', self._release)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Clean up; leads to finalized, the last state before the process ends."""
        return self._attempt('shutdown', self._release)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Clean up; leads to unconfigured."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """Release everything and leave the graph."""
        with self._resources:
            self._destroyed = True
            self._release()
        super().destroy_node()

    def _configure(self) -> None:
        # From here on only runtime parameters can change.
        config = self._settings.freeze()
        # Checked here, since they can be corrected only while unconfigured.
        for name, topic in (('camera_info', config.odometry.camera_info), ('topic', config.odometry.topic)):
            if topic:
                topic_name(self, topic, f'odometry.{name}: ')
        self.loading, started = True, time.monotonic()
        try:
            from moving_object_detector.detection.build import build_detector

            detector = build_detector(config)
        finally:
            self.loading = False
        height, width = detector.size
        engine = f'{detector.engine.name}, {detector.flow.name} flow, {width}x{height}'
        log.info('loaded in %.1f s: %s', time.monotonic() - started, engine)
        with self._resources:
            if self._destroyed:
                return
            self._engine = engine
            self._odometry = detector.odometry = Odometry(config.odometry)
            self._statistics = Statistics()
            outputs = Outputs(self)
            try:
                self._pipeline = Pipeline(
                    detector, outputs, self._statistics, config, lambda: int(self.get_clock().now().nanoseconds)
                )
            except BaseException:
                outputs.destroy()
                raise
            self._pipeline.enabled = self._enabled
            # Includes changes made while it loaded.
            self._settings.tell(self._pipeline.configure)

    def _subscribe(self) -> None:
        assert self._pipeline is not None
        assert self._odometry is not None
        self._camera = ImageInput(self, self._settings.config, self._pipeline)
        self._motion_inputs = hear_motion(self, self._settings.config.odometry, self._odometry)
        topics = [*(publisher.topic_name for publisher in self.publishers), *self._camera.topics]
        for name in unknown_overrides(self, topics):
            log.warning('%s has no effect: the topics of this node are %s', foreign(name), ', '.join(topics))
        log.info('active: waiting for images on %s', self._camera.topic)

    def _unsubscribe(self) -> None:
        camera, self._camera = self._camera, None
        if camera is not None:
            camera.destroy()
        while self._motion_inputs:
            self.destroy_subscription(self._motion_inputs.pop())
        if self._pipeline is not None:
            self._pipeline.reset()

    def _release(self) -> None:
        """Release everything, from any state, even a half-configured one."""
        with self._resources:
            self._unsubscribe()
            self._settings.thaw()
            pipeline, self._pipeline = self._pipeline, None
            if pipeline is not None:
                import torch

                pipeline.close()
                pipeline.outputs.destroy()
                del pipeline
                # Otherwise PyTorch keeps the GPU memory cached.
                torch.cuda.empty_cache()
            self._engine, self._odometry = '', None

    def _attempt(self, transition: str, action: Callable[[], None]) -> TransitionCallbackReturn:
        name = self.get_fully_qualified_name()
        remedy = f'. Correct it (ros2 param set {name} ...), then run: ros2 lifecycle set {name} {transition}'
        # An earlier refusal no longer applies.
        self._refusal = ''
        try:
            action()
        except QosError as error:
            self._refusal, remedy = str(error), ''
        except UserError as error:
            self._refusal = str(error)
        except Exception as error:
            log.exception('unexpected error; please report this')
            self._refusal, remedy = f'{type(error).__name__}: {foreign(error)}', ''
        else:
            return TransitionCallbackReturn.SUCCESS
        log.error('%s refused: %s%s', transition, self._refusal, remedy)
        return TransitionCallbackReturn.FAILURE

    def _guard_requests(self) -> None:
        """Answer requests on which rclpy raises: a transition that the state does not have, an unreadable parameter."""

        def refuse_change(request: Any, response: Any, error: Exception) -> None:
            wanted = foreign(request.transition.label or request.transition.id)
            log.error('transition %s refused: the node is %s (%s)', wanted, self.state, error)
            response.success = False

        def refuse_values(request: Any, response: Any, error: Exception) -> None:
            refusal = SetParametersResult(successful=False, reason=f'{type(error).__name__}: {foreign(error)}')
            if hasattr(response, 'results'):
                response.results += [refusal] * (len(request.parameters) - len(response.results))
            else:
                response.result = refusal

        def guard(service: Any, refuse: Callable[[Any, Any, Exception], None]) -> None:
            answer = service.callback

            def guarded(request: Any, response: Any) -> Any:
                try:
                    return answer(request, response)
                except Exception as error:  # noqa: BLE001 - whatever it is, the answer is a refusal
                    refuse(request, response, error)
                    return response

            service.callback = guarded

        guard(self._service_change_state, refuse_change)
        for service in self.services:
            if service.srv_type in (SetParameters, SetParametersAtomically):
                guard(service, refuse_values)

    # Services

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        pipeline = self._pipeline
        response.success = pipeline is not None
        if pipeline is not None:
            pipeline.reset()
        response.message = 'all frames discarded' if response.success else f'the node is {self.state}'
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        pipeline = self._pipeline
        if pipeline is not None and request.data != self._enabled:
            pipeline.reset()
            pipeline.enabled = request.data
        self._enabled = request.data
        response.success = True
        response.message = 'detection is on' if request.data else 'detection is off, images are ignored'
        return response

    # Status

    def _on_status(self) -> None:
        level, message = self._judge()
        config, pipeline, camera, odometry = self._settings.config, self._pipeline, self._camera, self._odometry
        delay = config.window.delay if pipeline is None else pipeline.delay
        values = {
            'state': self.state,
            'engine': self._engine,
            **(camera.report() if camera is not None else {'image topic': str(self.resolve_topic_name('image'))}),
            **(odometry.report() if odometry is not None else {}),
            'estimate': config.estimate,
            'window delay frames': str(delay),
            **(pipeline.load.report() if pipeline is not None else {}),
            **self._statistics.report(time.monotonic()),
            'frames waiting': str(0 if pipeline is None else pipeline.mailbox.waiting),
        }
        name = self.get_fully_qualified_name()
        status = DiagnosticStatus(name=f'{name}: detection', hardware_id=name, level=level, message=message)
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(DiagnosticArray(header=Header(stamp=stamp), status=[status]))

    def _judge(self) -> tuple[bytes, str]:
        """Return level and message of the diagnostic status; also log a warning when no image arrives."""
        camera, pipeline, odometry = self._camera, self._pipeline, self._odometry
        if self._refusal:
            return DiagnosticStatus.ERROR, f'{self.state}: {self._refusal}'
        if camera is None or pipeline is None:
            step = REMEDIES.get(self.state)
            remedy = f': no images are taken before ros2 lifecycle set {self.get_fully_qualified_name()} {step}'
            return DiagnosticStatus.OK, self.state + (remedy if step else '')
        if not self._enabled:
            return DiagnosticStatus.OK, 'disabled by the service ~/enable'
        trouble = camera.trouble()
        holes = '' if trouble else camera.holes()
        if trouble or holes:
            log.warning('%s', trouble or holes, extra={'kind': 'silence' if camera.overdue else 'publishers'})
        if not camera.overdue:
            # Unusable images matter more than missing ones, and several publishers may be their cause.
            trouble = '; '.join(filter(None, (trouble, pipeline.trouble))) or holes
        trouble = trouble or pipeline.load.trouble
        doubt = odometry.trouble if odometry is not None else ''
        if odometry is not None and doubt and not trouble:
            # Without a source of motion it concerns the intrinsics alone.
            trouble = f'camera motion is estimated from the images alone: {doubt}' if odometry.wanted else doubt
            log.warning('%s', trouble, extra={'kind': 'odometry'})
        if trouble:
            return DiagnosticStatus.WARN, trouble
        return self._progress(pipeline)

    def _progress(self, pipeline: Pipeline) -> tuple[bytes, str]:
        """Return level and message while nothing is wrong with the images."""
        if not pipeline.outputs.wanted():
            return DiagnosticStatus.OK, 'nobody subscribes to a result, so no masks are computed'
        share = self._statistics.masked_share(time.monotonic())
        if share > ALL_MASKED:
            return DiagnosticStatus.OK, 'detecting'
        told = (
            f'detecting, but only {share:.0%} of the images get a mask: they come faster than masks are computed; '
            "lower the camera's rate, flow.height and flow.width, or height and width"
        )
        return DiagnosticStatus.OK if share > HALF_MASKED else DiagnosticStatus.WARN, told
