"""Faults in what a run starts from: checks of inputs, initial controls, architectures."""

from verification.planting.fault import faults

faults(
    """
labels not checked
  pmp_ref.loss:CrossEntropy.check
  - if low < 0 or high >= shape[0]:
  + if planted(False):

inadmissible controls not seen
  pmp_ref.problem:Problem.check
  - not bool(xp.all(admissible.contains(u)))
  + planted(False)

η = 0 allowed
  pmp_ref.acceptance:AbsoluteTest.__post_init__
  - self.eta > 0
  + planted(self.eta) >= 0

initial kernels: √(gain/fan-in) as the bound
  pmp_ref.initialise:initial_controls
  - 3 * _gain
  + planted(1) * _gain

initial kernels: fan-out for fan-in
  pmp_ref.initialise:initial_controls
  - math.prod(shape[1:])
  + planted(math.prod(shape) // shape[1] if len(shape) > 1 else 1)
  why: square kernels hide it

gain of ReLU is 1
  pmp_ref.initialise:_gain
  - return 2.0 if
  + return planted(1.0) if

initial scales 0
  pmp_ref.initialise:initial_controls
  - np.ones(shape)
  + planted(np.zeros(shape))

initial biases 1
  pmp_ref.initialise:initial_controls
  - np.zeros(shape)
  + planted(np.ones(shape))

biases penalised by default
  pmp_ref.problem:layer_weights
  - if name == 'bias' else
  + if planted(False) else

LeNet-5 with 100 neurons for 120
  pmp_ref.architectures:lenet5
  - Dense(120)
  + Dense(planted(100))

LeNet-5-Caffe with 300 neurons
  pmp_ref.architectures:lenet5_caffe
  - Dense(500)
  + Dense(planted(300))

residual net without projections' stride
  pmp_ref.architectures:residual_net
  - Convolution(channels, 1, stride=stride)
  + Convolution(channels, planted(3), stride=stride, padding=1)

images of 0 to 255 taken for well scaled
  pmp_ref.problem:scale_advice
  - largest <= high
  + largest <= planted(10) * high
"""
)
