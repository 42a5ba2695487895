use std::sync::Arc;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let config = machine::Config { model: Arc::new(cpu::Model::xeon_e_2288g()), cpus: a[3].parse().unwrap(), memory: 1<<30, kernel: a[1].clone().into(), initrd: Some(a[2].clone().into()), cmdline: a[4].clone(), disks: vec![], serial: Box::new(std::io::stdout()), ports: vec![], strict: false };
    let t=std::time::Instant::now();
    let (r, _) = machine::start(config).unwrap();
    let o = loop { match r.wait(Some(std::time::Duration::from_secs(5))) { Some(o)=>break o, None=>eprintln!("[{:?}] retired {:?}", t.elapsed(), r.retired()) } if t.elapsed().as_secs()>120 {r.stop();} };
    match o { machine::Outcome::TripleFault(s)=>eprintln!("triple fault\n{s}"), o=>eprintln!("{o:?}") }
    eprintln!("{:?} retired {:?} unimplemented {:?}", t.elapsed(), r.retired(), r.unimplemented());
}
