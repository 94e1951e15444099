"""Raw observations in, actions out: policies in torch and from ONNX files, and their export."""

from ._onnx_file import Contract as Contract
from .acting import ActingPolicy as ActingPolicy
from .acting import NetworkPolicy as NetworkPolicy
from .choices import Choices as Choices
from .export import export_onnx as export_onnx
from .onnx_policy import OnnxPolicy as OnnxPolicy
from .policy import Policy as Policy
from .policy import ThresholdPolicy as ThresholdPolicy
from .torch_policy import TorchPolicy as TorchPolicy
from .verify import Verification as Verification
from .verify import verify_onnx as verify_onnx
