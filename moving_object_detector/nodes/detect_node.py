"""The lifecycle node around the detector."""

from __future__ import annotations

import time
import traceback
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.timer import Timer
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool, Trigger

from moving_object_detector.errors import UserError
from moving_object_detector.nodes.complaints import Complaints
from moving_object_detector.nodes.config import NodeConfig
from moving_object_detector.nodes.diagnostics import diagnostics
from moving_object_detector.nodes.mailbox import Order
from moving_object_detector.nodes.outputs import Outputs
from moving_object_detector.nodes.parameters import Parameters
from moving_object_detector.nodes.pipeline import Pipeline
from moving_object_detector.nodes.silence import explain_silence
from moving_object_detector.nodes.statistics import Statistics

if TYPE_CHECKING:
    from moving_object_detector.detection.detector import Detector

STATUS_PERIOD = 1.0


class DetectNode(LifecycleNode):  # type: ignore[misc]
    """Configure loads the model and advertises, activate subscribes, cleanup frees the memory.

    Transitions run in the default callback group; images, services and diagnostics in another, so
    that they go on while a transition takes its time.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, automatically_declare_parameters_from_overrides=True)
        self._group = MutuallyExclusiveCallbackGroup()
        self._pipeline: Pipeline | None = None
        self._outputs: Outputs | None = None
        self._subscription: Subscription[Any] | None = None
        self._statistics = Statistics()
        self._engine = ''
        self._state = 'unconfigured'
        self._refusal = ''
        self._enabled = True
        self._silent = False
        self._last_image = time.monotonic()
        self._complain = Complaints(self.get_logger().warning, interval=10.0)
        self._settings = Parameters(self, lambda: self._pipeline is None, self._reconfigure)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self.create_service(Trigger, '~/reset', self._on_reset, callback_group=self._group)
        self.create_service(SetBool, '~/enable', self._on_enable, callback_group=self._group)
        self.create_timer(STATUS_PERIOD, self._on_status, callback_group=self._group)
        self._starter: Timer | None = None
        if self._settings.config.autostart:
            self._starter = self.create_timer(0.0, self._autostart)

    def _autostart(self) -> None:
        if self._starter is not None:
            self._starter.cancel()
        if self.trigger_configure() is TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and advertise the results; failure leads back to unconfigured, with the reason logged."""
        self._state, self._refusal = 'configuring', ''
        config = self._settings.config
        started = time.monotonic()
        try:
            from moving_object_detector.detection.build import build_detector

            if self._settings.problems:
                raise UserError('; '.join(self._settings.problems.values()))
            self._build(build_detector(config), config)
        except UserError as error:
            return self._refuse(str(error))
        except Exception as error:
            # rclpy turns an exception here into a silent failure.
            self.get_logger().error(traceback.format_exc())
            return self._refuse(f'the detector could not be made: {type(error).__name__}: {error}')
        self._state = 'inactive'
        self.get_logger().info(f'configured in {time.monotonic() - started:.1f} s: {self._engine}')
        return TransitionCallbackReturn.SUCCESS

    def _build(self, detector: Detector, config: NodeConfig) -> None:
        self._engine = f'{detector.engine.name}, {detector.flow.name} flow, {detector.size[1]}x{detector.size[0]}'
        self._statistics = Statistics()
        self._outputs = Outputs(self)
        logger = self.get_logger()
        self._pipeline = Pipeline(
            detector,
            self._outputs,
            self._statistics,
            config,
            self._topic(),
            logger.warning,
            logger.error,
            lambda: int(self.get_clock().now().nanoseconds),
        )

    def _refuse(self, reason: str) -> TransitionCallbackReturn:
        self._release()
        self._state, self._refusal = 'unconfigured', reason
        name = self.get_fully_qualified_name()
        self.get_logger().error(
            f'not configured: {reason}. Correct it (ros2 param set {name} ...) and try again: '
            f'ros2 lifecycle set {name} configure'
        )
        return TransitionCallbackReturn.FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the images."""
        self._last_image, self._silent = time.monotonic(), False
        self._subscription = self.create_subscription(
            Image if self._settings.config.transport == 'raw' else CompressedImage,
            self._topic(),
            self._on_image,
            self._input_qos(),
            callback_group=self._group,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._state = 'active'
        self.get_logger().info(f'active: waiting for images on {self._topic()}')
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and forget the frames; the model stays loaded."""
        self._unsubscribe()
        if self._pipeline is not None:
            self._pipeline.mailbox.order(Order.RESET)
        self._state = 'inactive'
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and take the topics back."""
        self._release()
        self._state = 'unconfigured'
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything, from any state."""
        self._release()
        self._state = 'finalized'
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything; the node is unconfigured again."""
        self._release()
        self._state = 'unconfigured'
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """Release everything and leave the graph."""
        self._release()
        super().destroy_node()

    def _unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self.destroy_subscription(subscription)

    def _release(self) -> None:
        self._unsubscribe()
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            pipeline.close()
        outputs, self._outputs = self._outputs, None
        if outputs is not None:
            outputs.destroy()

    # Images

    def _topic(self) -> str:
        topic = str(self.resolve_topic_name('image'))
        return topic if self._settings.config.transport == 'raw' else f'{topic}/compressed'

    def _input_qos(self) -> QoSProfile:
        return QoSProfile(
            depth=qos_profile_sensor_data.depth,
            reliability=qos_profile_sensor_data.reliability,
            history=qos_profile_sensor_data.history,
        )

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._last_image = time.monotonic()
        if self._silent:
            self._silent = False
            self.get_logger().info(f'images come again on {self._topic()}')
        pipeline = self._pipeline
        if pipeline is not None and self._enabled:
            pipeline.receive(message)

    def _reconfigure(self, config: NodeConfig) -> None:
        if self._pipeline is not None:
            self._pipeline.configure(config)

    # Services

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._pipeline is not None
        if self._pipeline is not None:
            self._pipeline.mailbox.order(Order.RESET)
        response.message = 'all frames forgotten' if response.success else f'the node is {self._state}'
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if self._pipeline is not None and request.data != self._enabled:
            self._pipeline.mailbox.order(Order.RESET)
        self._enabled = request.data
        response.success = True
        response.message = 'detection is on' if request.data else 'detection is off, images are ignored'
        return response

    # Status

    def _on_status(self) -> None:
        level, message = self._judge()
        values = {'state': self._state, 'engine': self._engine, 'image topic': self._topic()}
        config = self._settings.config
        delay = config.window.future * config.window.stride if config.estimate == 'refined' else 0
        values['window delay frames'] = str(delay)
        values.update(self._statistics.report(time.monotonic()))
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostics(self.get_fully_qualified_name(), level, message, values, stamp))

    def _judge(self) -> tuple[bytes, str]:
        """Return level and message of the node's state, and speak up when no image comes."""
        if self._refusal:
            return DiagnosticStatus.ERROR, f'not configured: {self._refusal}'
        if self._state != 'active':
            return DiagnosticStatus.OK, self._state
        if not self._enabled:
            return DiagnosticStatus.OK, 'disabled by the service ~/enable'
        subscription = self._subscription
        silence = time.monotonic() - self._last_image
        if subscription is not None and silence > self._settings.config.input.timeout:
            kind = 'sensor_msgs/msg/' + ('Image' if self._settings.config.transport == 'raw' else 'CompressedImage')
            reason = explain_silence(self, self._topic(), kind, subscription.qos_profile)
            if not self._silent and self._pipeline is not None:
                self._pipeline.mailbox.order(Order.FLUSH)
            self._silent = True
            text = f'no image for {silence:.0f} s: {reason}'
            self._complain('silence', text)
            return DiagnosticStatus.WARN, text
        publishers = self.count_publishers(self._topic())
        if publishers > 1:
            text = f'{publishers} publishers on {self._topic()}: their images mix, and detection starts anew at each change'
            self._complain('publishers', text)
            return DiagnosticStatus.WARN, text
        if self._outputs is not None and not self._outputs.wanted():
            return DiagnosticStatus.OK, 'nobody subscribes to a result, so none is computed'
        return DiagnosticStatus.OK, 'detecting'
