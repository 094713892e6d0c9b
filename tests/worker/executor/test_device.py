import pytest

from runpod_worker.core.errors import SettingsError
from runpod_worker.worker.executor import device

torch = pytest.importorskip("torch")

# `resolve` uses torch when the program has it loaded, as this one has; the driver's own list is read by `_by_driver`.


@pytest.fixture
def driver(tmp_path):
    for number in range(2):
        (tmp_path / f"0000:0{number}:00.0").mkdir()
        (tmp_path / f"0000:0{number}:00.0" / "information").write_text(
            f"Model: \t\t NVIDIA H{number}00\nIRQ:   \t\t 35\nDevice Minor: \t {number}\n"
        )
    return tmp_path


def test_without_torch_the_driver_names_the_gpu(driver):
    assert device._by_driver("auto", driver) == device.Device("cuda:0", "cuda:0", "NVIDIA H000")
    assert device._by_driver("cuda:1", driver) == device.Device("cuda:1", "cuda:1", "NVIDIA H100")
    assert device._by_driver("cpu", driver) == device.Device("cpu", "cpu")


def test_without_torch_and_driver_there_is_the_cpu(tmp_path):
    assert device._by_driver("auto", tmp_path / "none").name == "cpu"
    with pytest.raises(SettingsError, match="cuda was requested, but there is no NVIDIA driver"):
        device._by_driver("cuda", tmp_path)


def test_a_gpu_that_is_not_there_is_refused(driver):
    with pytest.raises(SettingsError, match="cuda:2 was requested, but there are 2 CUDA devices, cuda:0 to cuda:1"):
        device._by_driver("cuda:2", driver)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "", "CPU"])
def test_what_is_no_device_is_refused(name):
    with pytest.raises(SettingsError, match="device: expected auto, cuda, cuda:N, cpu or mps"):
        device.resolve(name, with_torch=False)


def test_with_torch_the_model_gets_a_torch_device():
    assert device.resolve("cpu", with_torch=True) == device.Device("cpu", torch.device("cpu"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what the test misses")
@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps"])
def test_torch_without_such_a_device_is_never_given_another_one(name):
    with pytest.raises(SettingsError, match=f"{name} was requested, but torch"):
        device.resolve(name, with_torch=True)


@pytest.mark.gpu
def test_on_a_gpu_auto_is_the_first_one():
    chosen = device.resolve("auto", with_torch=True)

    assert chosen.name == "cuda:0"
    assert chosen.value == torch.device("cuda:0")
    assert chosen.gpu == torch.cuda.get_device_name(0)
