"""The package as a whole, seen from a fresh interpreter."""

import subprocess
import sys


def test_import_of_the_package_brings_what_the_readme_names():
    names = "sample noise Sampler PRSR PRSRConfig engines bits_per_dim prsr_loss bundled_models"
    names += " testing.cdf_violation data.SuperResolutionImages __version__"
    code = "import prsr; " + "; ".join(f"prsr.{name}" for name in names.split())
    subprocess.run([sys.executable, "-c", code], check=True)


def test_torchvision_is_never_imported():
    code = "import sys, prsr, prsr.cli.main, prsr.training.loop, prsr.evaluation.compare; "
    code += "import prsr.experiments.corners; "
    code += "sys.exit('torchvision' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_its_extension_the_engine_cpu_says_how_to_get_it():
    code = "import sys; sys.modules['prsr._native'] = None; import prsr; print(prsr.list_engines())"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
    for fact in (b"not built", b"C++ compiler", b"PRSR_BUILD_NATIVE=1", b"'torch': []"):
        assert fact in printed
