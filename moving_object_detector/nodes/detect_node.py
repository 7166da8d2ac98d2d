"""The lifecycle node around the detector."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from std_srvs.srv import SetBool, Trigger

from moving_object_detector.common.errors import foreign
from moving_object_detector.detection.load import Schedule
from moving_object_detector.detection.odometry import Odometry
from moving_object_detector.nodes.camera import ImageInput
from moving_object_detector.nodes.managed import ManagedNode
from moving_object_detector.nodes.messages import Statistics, diagnostics
from moving_object_detector.nodes.odometry import OdometryInput
from moving_object_detector.nodes.outputs import Outputs
from moving_object_detector.nodes.parameters import NodeConfig, Parameters
from moving_object_detector.nodes.pipeline import Pipeline
from moving_object_detector.nodes.qos import checked_overrides, overridable, result_qos, unknown_overrides
from moving_object_detector.nodes.runtime import kind

if TYPE_CHECKING:
    from moving_object_detector.detection.detector import Detector

log = logging.getLogger(__name__)

STATUS_PERIOD = 1.0


class DetectNode(ManagedNode):
    """Configure loads the model and advertises, activate subscribes, cleanup frees the memory."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._pipeline: Pipeline | None = None
        self._outputs: Outputs | None = None
        self._camera: ImageInput | None = None
        self._odometry: Odometry | None = None
        self._heard: OdometryInput | None = None
        self._statistics = Statistics()
        self._engine = ''
        self._enabled = True
        self._settings = Parameters(self, self._reconfigure)
        with checked_overrides(self, '/diagnostics'):
            self._diagnostics = self.create_publisher(
                DiagnosticArray, '/diagnostics', result_qos(), qos_overriding_options=overridable()
            )
        self.create_service(Trigger, '~/reset', self._on_reset)
        self.create_service(SetBool, '~/enable', self._on_enable)
        # Not the node's clock: simulated time may stand still, and that is when the status is needed.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(STATUS_PERIOD, self._on_status, clock=steady)
        if self._settings.config.autostart:
            group = MutuallyExclusiveCallbackGroup()
            self._starter = self.create_timer(0.0, self._autostart, callback_group=group, clock=steady)

    def _autostart(self) -> None:
        self._starter.cancel()
        self.start()

    # Transitions

    def load(self) -> tuple[Detector, NodeConfig]:
        """Load the model; all parameters are fixed from here on but those for run time."""
        config = self._settings.freeze()
        started = time.monotonic()
        from moving_object_detector.detection.build import build_detector

        detector = build_detector(config)
        height, width = detector.size
        self._engine = f'{detector.engine.name}, {detector.flow.name} flow, {width}x{height}'
        log.info('loaded in %.1f s: %s', time.monotonic() - started, self._engine)
        return detector, config

    def configure(self, loaded: tuple[Detector, NodeConfig]) -> None:
        """Advertise the results and start the computing thread."""
        detector, config = loaded
        self._odometry = detector.odometry = Odometry(config.odometry)
        self._statistics = Statistics()
        self._outputs = Outputs(self)
        self._pipeline = Pipeline(
            detector, self._outputs, self._statistics, config, lambda: int(self.get_clock().now().nanoseconds)
        )
        self._pipeline.enabled = self._enabled
        # What was set while it loaded.
        self._settings.repeat()

    def activate(self) -> None:
        """Subscribe to the images."""
        assert self._pipeline is not None
        assert self._odometry is not None
        self._camera = ImageInput(self, self._settings.config, self._pipeline)
        self._heard = OdometryInput(self, self._settings.config.odometry, self._odometry)
        topics = [*(publisher.topic_name for publisher in self.publishers), *self._camera.topics]
        for name in unknown_overrides(self, topics):
            log.warning('%s is for no topic of this node; its topics are %s', foreign(name), ', '.join(topics))
        log.info('active: waiting for images on %s', self._camera.topic)

    def deactivate(self) -> None:
        """Unsubscribe and forget the frames; the model stays loaded."""
        camera, self._camera = self._camera, None
        if camera is not None:
            camera.destroy()
        heard, self._heard = self._heard, None
        if heard is not None:
            heard.destroy()
        if self._pipeline is not None:
            self._pipeline.reset()

    def release(self) -> None:
        """Free the model and take the topics back."""
        self.deactivate()
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            import torch

            pipeline.close()
            del pipeline
            # Else PyTorch would keep a GPU's memory for what it may need later.
            torch.cuda.empty_cache()
        outputs, self._outputs = self._outputs, None
        if outputs is not None:
            outputs.destroy()
        self._engine = ''
        self._settings.thaw()

    def _reconfigure(self, config: NodeConfig) -> None:
        pipeline = self._pipeline
        if pipeline is not None:
            pipeline.configure(config)

    # Services

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        pipeline = self._pipeline
        response.success = pipeline is not None
        if pipeline is not None:
            pipeline.reset()
        response.message = 'all frames forgotten' if response.success else f'the node is {self.state}'
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
        config, pipeline, camera = self._settings.config, self._pipeline, self._camera
        delay = Schedule(config.window).delay if pipeline is None else pipeline.load.delay
        values = {
            'state': self.state,
            'engine': self._engine,
            **(camera.report() if camera is not None else {'image topic': str(self.resolve_topic_name('image'))}),
            **(self._odometry.report() if self._odometry is not None else {}),
            'estimate': config.estimate,
            'window delay frames': str(delay),
            **(pipeline.load.report() if pipeline is not None else {}),
            **self._statistics.report(time.monotonic()),
            'frames waiting': str(0 if pipeline is None else pipeline.waiting),
        }
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostics(self.get_fully_qualified_name(), level, message, values, stamp))

    def _judge(self) -> tuple[bytes, str]:
        """Return level and message of the node's state, and speak up when no image comes."""
        camera, pipeline, outputs = self._camera, self._pipeline, self._outputs
        if self.refusal:
            return DiagnosticStatus.ERROR, f'{self.state}: {self.refusal}'
        if camera is None or pipeline is None or outputs is None:
            return DiagnosticStatus.OK, self.state
        if not self._enabled:
            return DiagnosticStatus.OK, 'disabled by the service ~/enable'
        trouble = camera.trouble()
        if trouble:
            log.warning('%s', trouble, extra=kind('silence' if camera.overdue else 'publishers', 10.0, counted=False))
        trouble = trouble or pipeline.trouble or pipeline.load.trouble
        doubt = self._odometry.trouble if self._odometry is not None else ''
        if doubt and not trouble:
            trouble = f'the images alone tell how the camera moves: {doubt}'
            log.warning('%s', trouble, extra=kind('odometry', 10.0, counted=False))
        if trouble:
            return DiagnosticStatus.WARN, trouble
        nobody = 'nobody subscribes to a result, so none is computed'
        return DiagnosticStatus.OK, 'detecting' if outputs.wanted() else nobody
