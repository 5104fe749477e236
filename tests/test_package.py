"""The package, imported in a fresh interpreter."""

import subprocess
import sys

import prsr


def test_importing_prsr_provides_its_public_names():
    names = [*prsr.__all__, "engines", "testing.cdf_violation", "data.SuperResolutionImages"]
    code = "import prsr; " + "; ".join(f"prsr.{name}" for name in names)
    subprocess.run([sys.executable, "-c", code], check=True)


def test_torchvision_is_never_imported():
    code = "import sys, prsr, prsr.cli.main, prsr.training.loop, prsr.evaluation.compare; "
    code += "import prsr.experiments.corners; "
    code += "sys.exit('torchvision' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_cpu_extension_is_reported_with_the_remedy():
    code = "import sys; sys.modules['prsr._native'] = None; import prsr; print(prsr.list_engines())"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
    for fact in (b"not built", b"C++ compiler", b"PRSR_BUILD_NATIVE=1", b"'torch': []"):
        assert fact in printed
