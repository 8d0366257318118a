//! Machine code as text, with names for the places that are jumped to and for the constants.

use std::collections::BTreeMap;
use std::fmt::Write;

use iced_x86::{
    Decoder, DecoderOptions, Formatter, Instruction, IntelFormatter, SymbolResolver, SymbolResult,
};

use super::encode::Encoded;

/// Names of the addresses that are jumped to, and where the constants are.
struct Names {
    labels: BTreeMap<u64, String>,
    constants: std::ops::Range<u64>,
}

impl SymbolResolver for Names {
    fn symbol(
        &mut self,
        inst: &Instruction,
        _: u32,
        _: Option<u32>,
        address: u64,
        _: u32,
    ) -> Option<SymbolResult<'_>> {
        if inst.near_branch_target() != 0 {
            return self.labels.get(&address).map(|n| SymbolResult::with_str(address, n));
        }
        let named = inst.is_ip_rel_memory_operand() && self.constants.contains(&address);
        named.then(|| {
            SymbolResult::with_string(address, format!("constants+{}", address - self.constants.start))
        })
    }
}

/// The text of a function.
pub fn listing(code: &Encoded) -> String {
    let bytes = &code.bytes[..code.code_end];
    let instructions: Vec<Instruction> =
        Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE).iter().collect();
    let targets = instructions.iter().map(Instruction::near_branch_target).filter(|t| *t != 0);
    let mut labels: BTreeMap<u64, String> = targets.map(|t| (t, String::new())).collect();
    for (n, name) in labels.values_mut().enumerate() {
        *name = format!("L{n}");
    }
    let constants = code.constants_start as u64..code.bytes.len() as u64;
    let names = Names { labels: labels.clone(), constants };
    let mut formatter = IntelFormatter::with_options(Some(Box::new(names)), None);
    let options = formatter.options_mut();
    options.set_space_after_operand_separator(true);
    options.set_first_operand_char_index(12);
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_small_hex_numbers_in_decimal(true);
    options.set_signed_immediate_operands(true);
    options.set_rip_relative_addresses(false);
    let mut text = String::new();
    for i in &instructions {
        if let Some(label) = labels.get(&i.ip()) {
            let _ = writeln!(text, "{label}:");
        }
        text.push_str("    ");
        formatter.format(i, &mut text);
        text.push('\n');
    }
    for (n, word) in code.bytes[code.constants_start..].chunks(4).enumerate() {
        let bits = u32::from_le_bytes(word.try_into().unwrap_or_default());
        let _ = writeln!(text, "    constants+{}: {bits:#x} ({:?})", 4 * n, f32::from_bits(bits));
    }
    text
}
