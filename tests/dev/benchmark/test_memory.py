import torch

from tools.dev.benchmark.memory import peak_memory, running_peak

MEGA = 1_000_000


def test_running_peak_of_allocations_and_releases():
    assert running_peak([5, -5, 3, 4, -7, 6]) == 7
    assert running_peak([]) == 0
    # Released memory that was there before must not hide a later peak.
    assert running_peak([10, -10]) == 10


def test_peak_memory_of_known_tensors_on_the_cpu():
    before = torch.ones(MEGA)

    def work():
        first = before + 1  # 4 MB
        second = first + 1  # 8 MB
        del first  # 4 MB
        third = torch.empty(3 * MEGA).fill_(0)  # 16 MB: the peak
        del second, third
        return torch.empty(2 * MEGA).fill_(0)  # 8 MB

    peak = peak_memory(work, 'cpu')
    assert 16 * MEGA <= peak < 16.01 * MEGA


def test_peak_memory_of_a_backward_pass():
    x = torch.ones(MEGA, requires_grad=True)

    def work():
        # sin keeps x (there before); its output (4 MB) is kept for the square.
        (x.sin() ** 2).sum().backward()
        x.grad = None

    peak = peak_memory(work, 'cpu')
    # At least: sin(x), the gradient on it, and one more buffer of the chain.
    assert 12 * MEGA <= peak <= 20.1 * MEGA
    assert peak == peak_memory(work, 'cpu')
