//! Instance types: what EC2 says of them, or what their names say.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::domain::offering::InstanceType;

/// What `aws ec2 describe-instance-types` writes, as far as a choice depends on it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Described {
    instance_types: Vec<DescribedType>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribedType {
    instance_type: String,
    #[serde(default)]
    bare_metal: bool,
    #[serde(rename = "VCpuInfo")]
    vcpus: DescribedVcpus,
    memory_info: DescribedMemory,
    processor_info: DescribedProcessor,
    gpu_info: Option<DescribedGpus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribedVcpus {
    #[serde(rename = "DefaultVCpus")]
    default: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribedMemory {
    #[serde(rename = "SizeInMiB")]
    mib: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribedProcessor {
    #[serde(default)]
    supported_architectures: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribedGpus {
    #[serde(default)]
    gpus: Vec<DescribedGpu>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribedGpu {
    #[serde(default)]
    count: u32,
}

/// Reads what `aws ec2 describe-instance-types --output json` writes.
pub fn described(text: &str) -> Result<BTreeMap<String, InstanceType>, serde_json::Error> {
    let of = |one: DescribedType| {
        let arm = one.processor_info.supported_architectures.iter().any(|arch| arch == "arm64");
        let gpus = one.gpu_info.map_or(0, |of| of.gpus.iter().map(|gpu| gpu.count).sum());
        let of = InstanceType {
            arch: if arm { "arm64" } else { "amd64" }.to_owned(),
            vcpus: one.vcpus.default,
            memory_mib: one.memory_info.mib,
            gpus,
            bare_metal: one.bare_metal,
            name: one.instance_type,
        };
        (of.name.clone(), of)
    };
    Ok(serde_json::from_str::<Described>(text)?.instance_types.into_iter().map(of).collect())
}

/// What the name of a type says where it is of the families whose sizes are regular: C, M and R from `large` on.
pub fn by_name(name: &str) -> Option<InstanceType> {
    let (family, size) = name.split_once('.')?;
    let of = InstanceType { name: name.to_owned(), ..InstanceType::default() };
    let (category, generation) = (of.category().to_owned(), of.generation()?);
    let gib_each = match category.as_str() {
        "c" => 2,
        "m" => 4,
        "r" => 8,
        _ => return None,
    };
    let vcpus = match size {
        "large" => 2,
        "xlarge" => 4,
        _ => size.strip_suffix("xlarge")?.parse::<u32>().ok().filter(|times| (2..=48).contains(times))? * 4,
    };
    let features = family.get(category.len() + generation.to_string().len()..)?;
    let arch = if features.starts_with('g') { "arm64" } else { "amd64" };
    Some(InstanceType { arch: arch.to_owned(), vcpus, memory_mib: u64::from(vcpus) * gib_each * 1_024, ..of })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_names_say_what_a_type_is() {
        for (name, arch, vcpus, gib) in [
            ("m7g.2xlarge", "arm64", 8, 32),
            ("c6i.large", "amd64", 2, 4),
            ("r6gd.xlarge", "arm64", 4, 32),
            ("m5.24xlarge", "amd64", 96, 384),
            ("c7gn.4xlarge", "arm64", 16, 32),
        ] {
            let of = by_name(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!((of.arch.as_str(), of.vcpus, of.memory_mib), (arch, vcpus, gib * 1_024), "{name}");
        }
        for name in ["t3.large", "m7g.metal", "m7g.medium", "p5.48xlarge", "m7g", "", "m.large", "r6g.999999999xlarge"]
        {
            assert!(by_name(name).is_none(), "{name}");
        }
    }

    #[test]
    fn what_the_aws_command_writes_is_read() {
        let text = r#"{"InstanceTypes":[{"InstanceType":"g5.xlarge","BareMetal":false,"VCpuInfo":{"DefaultVCpus":4},
            "MemoryInfo":{"SizeInMiB":16384},"ProcessorInfo":{"SupportedArchitectures":["x86_64"]},
            "GpuInfo":{"Gpus":[{"Name":"A10G","Count":1}]}}]}"#;
        let of = &described(text).unwrap()["g5.xlarge"];
        assert_eq!((of.arch.as_str(), of.vcpus, of.memory_mib, of.gpus), ("amd64", 4, 16_384, 1));
        assert!(described("{}").is_err());
    }
}
